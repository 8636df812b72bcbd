from exporter.graph.deduplicate import SIZE_LIMIT, deduplicate
from tests.exporter.graph.small import model


def test_equal_initializers_become_one():
    merged = deduplicate(model("a = Add(x, two)", "y = Mul(a, also_two)"))
    assert len(merged.graph.initializers) == 1


def test_equal_nodes_become_one():
    merged = deduplicate(model("a = Add(x, two)", "b = Add(x, two)", "y = Mul(a, b)"))
    assert [node.op_type for node in merged.graph] == ["Add", "Mul"]


def test_weights_are_not_read():
    merged = deduplicate(model("a = Add(x, large)", "y = Mul(a, also_large)", size=SIZE_LIMIT + 1))
    assert {"large", "also_large"} <= set(merged.graph.initializers)

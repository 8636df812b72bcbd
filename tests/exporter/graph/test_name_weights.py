"""A transposed weight keeps its weight's name."""

from exporter.graph.fold import fold
from exporter.graph.name_weights import name_weights
from tests.exporter.graph import small


def test_a_transposed_weight_is_called_after_the_weight():
    model = name_weights(small.model("val_7 = Transpose(large)", "y = Add(x, val_7)"))
    assert [node.outputs[0].name for node in model.graph] == ["large.T", "y"]


def test_folding_keeps_the_name():
    model = fold(name_weights(small.model("val_7 = Transpose(large)", "y = Add(x, val_7)")))
    assert "val_7" not in model.graph.initializers


def test_a_name_that_is_taken_stays_with_its_owner():
    model = name_weights(small.model("a = Transpose(large)", "b = Transpose(large)", "c = Add(a, b)", "y = Add(x, c)"))
    assert sorted(str(node.outputs[0].name) for node in model.graph) == ["b", "c", "large.T", "y"]

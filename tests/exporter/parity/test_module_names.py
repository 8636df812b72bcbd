from exporter.parity.module_names import WRAPPER, module_of
from tests.exporter.graph.small import model

SCOPES = "pkg.torch.onnx.name_scopes"


def test_a_node_says_its_module_and_one_that_does_not_has_its_neighbours():
    graph = model("a = Mul(x, one)", "b = Relu(a)", "y = Add(b, two)").graph
    first, second, last = graph
    assert module_of([second]) == ""
    first.metadata_props[SCOPES] = "['', 'mid', 'mid.conv', 'mul']"
    assert [module_of([node]) for node in graph] == ["mid.conv"] * 3
    last.metadata_props[SCOPES] = "['', 'add']"
    assert module_of([last]) == WRAPPER


def test_a_weight_names_the_module_where_nothing_else_does():
    graph = model("a = Mul(x, one)", "y = Relu(a)").graph
    graph.initializers["one"].name = "down.to_q.weight.T"
    assert module_of([graph.node(0)]) == "down.to_q"

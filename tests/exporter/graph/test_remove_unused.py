from exporter.graph.remove_unused import remove_unused
from tests.exporter.graph.small import model


def test_what_no_output_needs_is_gone():
    left = remove_unused(model("a = Add(x, two)", "b = Identity(x)", "y = Mul(b, one)"))
    assert [node.op_type for node in left.graph] == ["Mul"]
    assert set(left.graph.initializers) == {"one"}


def test_metadata_of_the_exporter_is_gone():
    noisy = model("y = Mul(x, one)")
    noisy.graph.node(0).metadata_props["pkg.torch.onnx.stack_trace"] = "File /somewhere/private.py"
    assert not remove_unused(noisy).graph.node(0).metadata_props


def test_a_node_keeps_the_names_of_its_modules_through_every_pass():
    noisy = model("a = Mul(x, one)", "y = Add(a, two)")
    noisy.graph.node(0).metadata_props["pkg.torch.onnx.name_scopes"] = "['', 'mid.conv', 'mul']"
    first, second = remove_unused(noisy).graph
    assert dict(first.metadata_props) == {"pkg.torch.onnx.name_scopes": "['', 'mid.conv', 'mul']"}
    assert not second.metadata_props

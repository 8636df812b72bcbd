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

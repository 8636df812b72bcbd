"""Q/DQ that every processor computes as it is written."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from engines.errors import UnsupportedError
from exporter.onnx.layers import layers
from exporter.quantization.calibration import Spec
from exporter.quantization.qdq import NodeWriter, write
from tests.arithmetic import needs_openvino
from tests.exporter.passes import layered
from tests.exporter.passes.layered import error, kinds, quantized


@pytest.mark.parametrize(
    ("options", "floor"),
    [
        ({"format": "int8"}, 35), ({"format": "int8-smoothquant"}, 35), ({"format": "int8-hybrid"}, 35),
        ({"format": "int8-weights"}, 40), ({"format": "int4-weights"}, 20), ({"format": "int4-weights", "search": False}, 20),
        ({"format": "int8", "rest": "int8-weights"}, 35), ({"format": "int8", "outputs": True}, 32),
    ],
)  # fmt: skip
def test_both_processors_compute_what_the_graph_says(tmp_path, options, floor):
    found, file = quantized(tmp_path, **options)
    plain = tmp_path / "export" / "unet.onnx"
    assert found.format == options["format"]
    exact = error(file, plain, graph_optimization="none")
    assert floor <= exact < 120
    assert error(file, plain) >= floor
    needs_openvino()
    assert error(file, plain, "openvino", tmp_path / "openvino") >= floor - 3


def test_fp8_is_written_for_the_gpus_that_have_it(tmp_path):
    _, file = quantized(tmp_path, format="fp8")
    types = {each.name: each.data_type for each in onnx.load(file).graph.initializer}
    assert types["net.to_q.weight.T.fp8"] == onnx.TensorProto.FLOAT8E4M3FN
    assert error(file, tmp_path / "export" / "unet.onnx", graph_optimization="none") >= 25


def test_four_bits_declare_the_operator_set_that_has_them(tmp_path):
    _, file = quantized(tmp_path, format="int4-weights", block=32)
    model = onnx.load(file)
    assert [each.version for each in model.opset_import if not each.domain] == [21]
    assert {each.name: each.data_type for each in model.graph.initializer}["net.to_q.weight.T.int4"] == onnx.TensorProto.INT4


def test_smoothing_divides_in_the_norm_where_only_its_readers_see_it(tmp_path):
    found, file = quantized(tmp_path, format="int8-smoothquant")
    assert found.layers["to_q"].factors == found.layers["to_k"].factors != ()
    # middle and to_out get a Mul of their own; the norm before to_q and to_k takes the division in.
    assert kinds(file).count("Mul") == kinds(tmp_path / "export" / "unet.onnx").count("Mul") + 2


def test_a_dead_weight_names_its_layer(tmp_path):
    with pytest.raises(UnsupportedError, match="middle cannot be quantized: its weight is zero throughout"):
        quantized(tmp_path, format="int8-weights", graph={"dead": True})


def opened(tmp_path):
    model = ir.load(layered.write(tmp_path / "export"))
    return model, {layer.name: layer for layer in layers(model)}


def values(value):
    return value.const_value.numpy().astype(np.float32)


@pytest.mark.parametrize("weights", ["int8", "fp8", "int4"])
@pytest.mark.parametrize("name", ["conv_in", "to_q"])
def test_a_weight_comes_back_within_its_step(tmp_path, weights, name):
    model, found = opened(tmp_path)
    before = values(found[name].weight)
    nodes, _ = NodeWriter(model, 16).weight(found[name], Spec(weights=weights))
    numbers, scale, *_ = (values(each) for each in nodes[0].inputs)
    attributes = {key: each.as_int() for key, each in nodes[0].attributes.items()}
    if weights == "int4":
        scale = scale.repeat(attributes["block_size"], attributes["axis"])
        assert [node.op_type for node in nodes] == ["DequantizeLinear", *(["Reshape"] if name == "conv_in" else [])]
    else:
        assert attributes == {"axis": 0 if name == "conv_in" else 1}
        scale = scale.reshape([-1 if axis == attributes["axis"] else 1 for axis in range(before.ndim)])
    back = (numbers * scale).reshape(before.shape)
    off = np.abs(back - before)
    bound = {"int8": 0.51 / 127, "fp8": 2**-4, "int4": 0.35}[weights] * np.abs(before).max()
    assert 0 < off.max() <= bound


def test_channels_are_multiplied_before_they_are_rounded(tmp_path):
    model, found = opened(tmp_path)
    before, factors = values(found["to_q"].weight), tuple(float(2.0 ** (index % 3)) for index in range(16))
    nodes, _ = NodeWriter(model, 16).weight(found["to_q"], Spec(weights="int8", factors=factors))
    numbers, scale, zero = (values(each) for each in nodes[0].inputs)
    want = before * np.array(factors)[:, None]
    np.testing.assert_allclose(numbers * scale, want, atol=0.51 * scale.max())
    assert not zero.any()
    divided, _ = NodeWriter(model, 16).divided(found["to_q"], factors)
    np.testing.assert_allclose(values(divided[0].inputs[1]), 1 / np.array(factors))


def test_an_activation_is_clipped_at_its_range(tmp_path):
    model, found = opened(tmp_path)
    nodes, value = NodeWriter(model, 16).activation(found["to_q"].source, 12.7, "int8", ir.DataType.FLOAT, "x")
    assert [node.op_type for node in nodes] == ["QuantizeLinear", "DequantizeLinear"]
    np.testing.assert_allclose(values(nodes[0].inputs[1]), 0.1, rtol=1e-6)
    assert value.name == "x/dq:0"
    with pytest.raises(UnsupportedError, match=r"x would get a scale of 1e-\d+ to .*, which FLOAT16 does not hold"):
        NodeWriter(model, 16).activation(found["to_q"].source, 127e-9, "int8", ir.DataType.FLOAT16, "x")


def test_a_constant_is_made_once_and_marks_keep_writers_apart(tmp_path):
    model, _ = opened(tmp_path)
    writer = NodeWriter(model, 16)
    assert writer.constant("a", np.array(1.0)) is writer.constant("a", np.array(2.0))
    assert NodeWriter(model, 16, "form2.").constant("a", np.array(2.0)) is not writer.constant("a", np.array(1.0))
    assert {"a", "form2.a"} <= set(model.graph.initializers)


def test_what_is_quantized_leaves_no_plain_weight_and_the_rest_is_as_it_was(tmp_path):
    model, found = opened(tmp_path)
    spec = Spec(weights="int8", activations="int8", range=3.0)
    write(model, tuple(found.values()), {"to_q": spec, "to_k": spec}, 16)
    names = set(model.graph.initializers)
    assert not names & {"net.to_q.weight.T", "net.to_k.weight.T"}
    assert "net.to_out.weight.T" in names
    operators = [node.op_type for node in model.graph]
    assert (operators.count("QuantizeLinear"), operators.count("DequantizeLinear")) == (1, 3), "one range, one Q/DQ"


def test_an_output_of_the_network_is_not_rounded(tmp_path):
    model, found = opened(tmp_path)
    spec = Spec(weights="int8", activations="int8", range=3.0, output=3.0)
    with pytest.raises(UnsupportedError, match="conv_out makes an output of the network, which stays as it is"):
        write(model, tuple(found.values()), {"conv_out": spec}, 16)

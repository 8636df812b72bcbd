"""From recorded calls to a decision for every layer, and what is refused before time is spent."""

import onnx
import onnx_ir as ir
import pytest

from engines.errors import RecipeError, UnsupportedError
from exporter.passes.quantize import Quantize
from exporter.quantization import calibrate
from tests.exporter.passes import layered
from tests.exporter.passes.layered import MIDDLE, kinds, quantized


def test_what_is_delicate_stays_and_the_rest_is_quantized(tmp_path):
    found, file = quantized(tmp_path, format="int8")
    assert set(found.layers) == MIDDLE
    assert found.kept == dict.fromkeys(["conv_in", "conv_out"], "first or last, or time embedding")
    # Each weight behind a DQ; to_q and to_k share the Q/DQ of their input.
    assert kinds(file).count("QuantizeLinear") == 3
    assert kinds(file).count("DequantizeLinear") == 3 + 4
    types = {each.name: each.data_type for each in onnx.load(file).graph.initializer}
    assert types["net.middle.weight.int8"] == onnx.TensorProto.INT8
    assert "net.middle.weight" not in types
    assert "net.conv_in.weight" in types


def test_the_same_calls_give_the_same_bytes(tmp_path):
    twice = []
    for name in ("first", "second"):
        found, file = quantized(tmp_path / name, format="int8-smoothquant", keep_above=30.0, rest="int8-weights")
        found.dump(tmp_path / name / "c.json")
        twice.append([path.read_bytes() for path in (tmp_path / name / "c.json", file, file.with_name("unet.onnx.data"))])
    assert twice[0] == twice[1]


def test_keeping_everything_is_refused(tmp_path):
    with pytest.raises(UnsupportedError, match="keep leaves no layer"):
        quantized(tmp_path, format="int8-weights", keep=["*"])


def test_too_few_calls_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="32 calls are asked for and 6 were recorded"):
        quantized(tmp_path, format="int8", samples=32)
    with pytest.raises(RecipeError, match="1 were recorded"):
        quantized(tmp_path / "one", format="int8", cases=layered.cases(1))


def test_a_calibration_of_another_graph_is_refused(tmp_path):
    found, _ = quantized(tmp_path, format="int8-weights")
    other = found.model_copy(update={"layers": {**found.layers, "elsewhere": found.layers["middle"]}})
    with pytest.raises(UnsupportedError, match="speaks of elsewhere"):
        Quantize(format="int8-weights").apply(tmp_path / "export" / "unet.onnx", other, tmp_path / "unet.onnx")


def test_calls_are_spread_evenly_from_the_first_to_the_last(tmp_path):
    found, _ = quantized(tmp_path, format="int8", samples=3)
    labels = [case.label for case in layered.cases()]
    assert found.samples == (labels[0], labels[2], labels[5])
    assert [time for time, _ in found.seen["middle"].steps] == ["0", "2", "5"]


def test_layers_are_counted(tmp_path):
    assert calibrate.count(layered.write(tmp_path / "export")) == 6


def test_a_part_without_layers_is_refused(tmp_path):
    start = layered.given(tmp_path)
    model = ir.load(start.graph)
    for layer in calibrate.layers(model):
        layer.weight.name = str(layer.weight.name)
        layer.node.replace_input_with(1, layer.source)  # no weight is constant now
    ir.save(model, start.graph, external_data="unet.onnx.data")
    with pytest.raises(UnsupportedError, match=r"unet has no layer that can be quantized.\n  Leave quantize out of its passes"):
        Quantize(format="int8-weights").calibrate(start)


@pytest.mark.parametrize(("given", "asked", "rounded"), [(True, None, True), (False, None, False), (True, False, False)])
def test_outputs_are_rounded_where_a_target_wants_it_unless_the_recipe_says(tmp_path, given, asked, rounded):
    found, _ = quantized(tmp_path, format="int8", outputs=given, samples=2) if asked is None else (
        Quantize(format="int8", outputs=asked, samples=2).calibrate(layered.given(tmp_path, outputs=given)), None
    )  # fmt: skip
    assert (found.layers["middle"].output is not None) == rounded
    assert found.layers["to_q"].output is None


def test_of_formats_without_activations_nothing_is_watched(tmp_path):
    found = Quantize(format="int8-weights").calibrate(layered.given(tmp_path, []))
    assert (found.seen, found.samples, found.ranges, found.measured) == ({}, (), "", None)
    assert {spec.weights for spec in found.layers.values()} == {"int8"}
    assert list(found.layers) == ["middle", "to_q", "to_k", "to_out"], "in the graph's order"

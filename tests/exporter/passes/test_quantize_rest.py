"""What becomes of the layers that a format leaves alone."""

import pytest

from engines.errors import RecipeError
from exporter.quantization.calibration import Spec
from tests.exporter.passes.layered import MIDDLE, error, quantized

REST = {"format": "int8", "rest": "int8-weights"}


def test_without_a_wish_the_weights_of_all_that_stay_are_in_8_bits(tmp_path):
    found, _ = quantized(tmp_path, **REST)
    assert {name: found.layers[name] for name in found.kept} == dict.fromkeys(["conv_in", "conv_out"], Spec(weights="int8"))
    assert set(found.kept.values()) == {"first or last, or time embedding; weights in 8 bits"}
    assert not found.rest


def test_what_stays_is_judged_by_its_weights_alone(tmp_path):
    free, _ = quantized(tmp_path / "free", budget=1.0, **REST)
    assert set(free.rest) == MIDDLE | {"conv_in", "conv_out"}
    delicate = min(free.rest, key=lambda name: free.rest[name])
    floor = free.rest[delicate] - 0.5  # that layer alone would do, and not with others
    found, file = quantized(tmp_path / "held", keep_above=floor, **REST)
    assert found.measured >= floor
    assert delicate not in found.layers
    assert found.kept[delicate].endswith(f"stays as it is: weights in 8 bits alone leave {free.rest[delicate]:.1f} dB")
    lowered = {name for name in found.kept if name in found.layers}
    assert lowered
    assert {found.layers[name] for name in lowered} == {Spec(weights="int8")}
    assert all("; weights in 8 bits: " in found.kept[name] for name in lowered)
    assert error(file, tmp_path / "held" / "export" / "unet.onnx", graph_optimization="none") >= floor - 0.5


def test_a_budget_leaves_weights_that_cost_more_than_the_last_it_takes(tmp_path):
    found, _ = quantized(tmp_path, budget=0.5, **REST)
    whole = [name for name in MIDDLE if name not in found.kept]
    assert len(whole) == 2
    last = min(found.sensitivity[name] for name in whole)
    assert {name for name in found.kept if name in found.layers} == {name for name in found.kept if found.rest[name] >= last}


def test_four_bits_that_a_layer_does_not_bear_become_eight(tmp_path):
    free, _ = quantized(tmp_path / "free", format="int4-weights", budget=1.0)
    found, _ = quantized(tmp_path / "held", format="int4-weights", rest="int8-weights", keep_above=free.measured + 3)
    middling = [name for name in MIDDLE if name in found.kept]
    assert middling
    assert {found.layers[name].weights for name in middling} == {"int8"}


@pytest.mark.parametrize("options", [{"format": "int8"}, {"format": "int8-smoothquant"}, {"format": "int4-weights"}])
def test_a_scan_of_two_forms_measures_what_the_written_graph_does(tmp_path, options):
    for share in (0.25, 1.0):
        found, file = quantized(tmp_path / str(share), budget=share, rest="int8-weights", **options)
        plain = tmp_path / str(share) / "export" / "unet.onnx"
        assert len(found.layers) > len(found.layers.keys() - found.kept)
        assert error(file, plain, graph_optimization="none") == pytest.approx(found.measured, abs=0.3)


def test_untouched_is_left_by_rest(tmp_path):
    found, _ = quantized(tmp_path, untouched=["conv_in"], **REST)
    assert "conv_in" not in found.layers
    assert found.kept["conv_in"] == "first or last, or time embedding; stays as it is"
    assert found.layers["conv_out"] == Spec(weights="int8")
    with pytest.raises(RecipeError, match=r"quantize\.untouched: 'conv_inn' is no layer of this graph; did you mean 'conv_in'"):
        quantized(tmp_path / "typo", untouched=["conv_inn"], **REST)


def test_what_was_found_can_be_written_and_gives_the_same_graph(tmp_path):
    free, _ = quantized(tmp_path / "free", budget=1.0, **REST)
    found, file = quantized(tmp_path / "found", keep_above=min(free.rest.values()) - 0.5, **REST)
    untouched = [name for name in found.kept if name not in found.layers]
    assert untouched
    again, other = quantized(tmp_path / "again", keep=list(found.kept), untouched=untouched, **REST)
    assert again.layers == found.layers
    for name in ("unet.onnx", "unet.onnx.data"):
        assert file.with_name(name).read_bytes() == other.with_name(name).read_bytes()

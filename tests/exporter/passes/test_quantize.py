"""Quantization: numbers, ranges, Q/DQ that every backend takes, sensitivities, and what is refused before time is spent."""

import json

import numpy as np
import onnx
import pytest
from pydantic import ValidationError

from engines import plugins
from engines.errors import RecipeError, UnsupportedError
from exporter.passes import Pass
from exporter.passes.quantize import Quantize
from exporter.quantization import clipping, formats, numerics
from exporter.quantization.calibration import Calibration, read
from exporter.quantization.observer import Watched
from tests.exporter.passes import layered
from tests.exporter.passes.layered import error, quantized

MIDDLE = {"middle", "to_q", "to_k", "to_out"}


def kinds(file):
    return [node.op_type for node in onnx.load(file, load_external_data=False).graph.node]


# ── numbers


def test_eight_bits_keep_every_channel_within_half_a_step():
    weight = np.random.default_rng(0).standard_normal((8, 5, 3, 3)).astype(np.float32)
    weight[2] *= 1000
    weight[4] = 0
    numbers, scale = numerics.per_channel(weight, 0, "int8")
    back = numbers.astype(np.float32) * scale[:, None, None, None]
    assert numbers.dtype == np.int8
    assert (np.abs(back - weight) <= scale[:, None, None, None] / 2 * 1.0001).all()
    assert not back[4].any()


def test_four_bits_in_blocks_beat_plain_rounding_to_the_largest():
    rows = np.random.default_rng(0).standard_t(3, (64, 128)).astype(np.float32)
    numbers, scale = numerics.in_blocks(rows, 32)
    back = (numbers.reshape(-1, 32) * scale.reshape(-1, 1)).reshape(rows.shape)
    blocks = rows.reshape(-1, 32)
    peak = np.abs(blocks).max(axis=1, keepdims=True) / 7
    plain = (np.rint(blocks / peak) * peak).reshape(rows.shape)
    assert np.abs(numbers).max() == 7
    assert scale.shape == (64, 4)
    assert np.square(back - rows).sum() < np.square(plain - rows).sum()


@pytest.mark.parametrize(
    ("length", "wanted", "block"), [(128, 64, 64), (96, 64, 32), (720, 128, 16), (40, 64, 0), (1280, 128, 128)]
)
def test_a_block_divides_its_row(length, wanted, block):
    assert numerics.block_of(length, wanted) == block


@pytest.mark.parametrize(("value", "said"), [(0.0, "zero throughout"), (np.nan, "NaN")])
def test_weights_without_a_scale_are_refused(value, said):
    with pytest.raises(ValueError, match=said):
        numerics.per_channel(np.full((4, 4), value, np.float32), 0, "int8")


# ── ranges


def watched(*arrays):
    found = Watched()
    for array in arrays:
        found.see(np.asarray(array, np.float32).reshape(1, 1, -1), 1, len(arrays), rows=False)
    return found


def test_minmax_is_the_largest_of_all_calls():
    assert clipping.reach(watched([1, -3, 2], [0.5, 7]), "minmax", 99.9, "int8") == 7.0


def test_a_percentile_leaves_rare_large_numbers_out():
    random = np.random.default_rng(0)
    found = watched(np.append(random.uniform(-1, 1, 100_000), 50.0))
    assert clipping.reach(found, "minmax", 99.9, "int8") == 50.0
    assert clipping.reach(found, "percentile", 99.9, "int8") < 1.1


def test_stepwise_lets_a_quiet_step_count_as_much_as_a_loud_one():
    random = np.random.default_rng(0)
    quiet, loud = random.normal(0, 0.02, 50_000), np.append(random.normal(0, 0.02, 50_000), random.normal(0, 1.0, 500))
    few = clipping.reach(watched(*[quiet] * 7, loud), "stepwise", 99.9, "int8")
    alone = clipping.reach(watched(loud), "stepwise", 99.9, "int8")
    assert few < alone <= np.abs(loud).max() * 1.01


def test_a_histogram_grows_without_losing_a_number():
    found = watched([0.001, 0.5], [3.0], [900.0])
    assert found.top == 1024.0
    assert [int(counts.sum()) for counts in found.counts] == [2, 1, 1]
    assert found.largest == pytest.approx([0.5, 3.0, 900.0])


# ── the graph


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
    pytest.importorskip("openvino")
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


def test_smoothing_saves_what_one_large_channel_costs(tmp_path):
    results = {}
    for name, options in {"plain": {"format": "int8", "ranges": "minmax"}, "smooth": {"format": "int8-smoothquant"}}.items():
        _, file = quantized(tmp_path / name, graph={"spike": 200.0}, **options)
        results[name] = error(file, tmp_path / name / "export" / "unet.onnx", graph_optimization="none")
    assert results["smooth"] > results["plain"] + 3


def test_the_same_calls_give_the_same_bytes(tmp_path):
    twice = []
    for name in ("first", "second"):
        found, file = quantized(tmp_path / name, format="int8-smoothquant", keep_above=30.0, rest="int8-weights")
        found.dump(tmp_path / name / "c.json")
        twice.append([path.read_bytes() for path in (tmp_path / name / "c.json", file, file.with_name("unet.onnx.data"))])
    assert twice[0] == twice[1]


def test_a_calibration_is_read_back_as_it_was_written(tmp_path):
    found, _ = quantized(tmp_path, format="int8", budget=0.5)
    found.dump(tmp_path / "unet.json")
    assert read(tmp_path / "unet.json", "here") == found
    seen = json.loads((tmp_path / "unet.json").read_text())["seen"]["middle"]
    assert len(seen["steps"]) == 6
    assert sum(seen["histogram"]) == 6 * 16 * 8 * 8


# ── what is sensitive


def test_a_budget_keeps_the_most_sensitive(tmp_path):
    found, _ = quantized(tmp_path, format="int4-weights", budget=0.5)
    assert set(found.sensitivity) == MIDDLE
    ranked = sorted(found.sensitivity, key=lambda name: -found.sensitivity[name])
    assert set(found.layers) == set(ranked[:2])
    assert all("dB when quantized alone" in found.kept[name] for name in ranked[2:])


def test_keep_above_is_kept(tmp_path):
    free, _ = quantized(tmp_path / "free", format="int4-weights", budget=1.0)
    wish = free.measured + 3
    found, file = quantized(tmp_path / "held", format="int4-weights", keep_above=wish)
    assert found.measured >= wish
    assert len(found.layers) < len(free.layers)
    assert error(file, tmp_path / "held" / "export" / "unet.onnx", graph_optimization="none") >= wish - 0.5


def test_the_scan_measures_what_the_written_graph_does(tmp_path):
    for options in ({"format": "int8"}, {"format": "int4-weights"}, {"format": "int8", "outputs": True}):
        place = tmp_path / str(len(list(tmp_path.iterdir())))
        found, file = quantized(place, budget=1.0, **options)
        assert error(file, place / "export" / "unet.onnx", graph_optimization="none") == pytest.approx(found.measured, abs=0.3)


def test_what_nothing_can_keep_is_said(tmp_path):
    with pytest.raises(UnsupportedError, match=r"no layer can be quantized at 150 dB; the least sensitive, \w+, alone leaves"):
        quantized(tmp_path, format="int8", keep_above=150.0)


# ── what is refused


def test_a_pattern_that_means_nothing_is_told(tmp_path):
    with pytest.raises(RecipeError, match=r"quantize\.keep: 'midle' is no layer of this graph; did you mean 'middle'"):
        quantized(tmp_path, format="int8-weights", keep=["midle"])


def test_keeping_everything_is_refused(tmp_path):
    with pytest.raises(UnsupportedError, match="keep leaves no layer"):
        quantized(tmp_path, format="int8-weights", keep=["*"])


def test_too_few_calls_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="32 calls are asked for and 6 were recorded"):
        quantized(tmp_path, format="int8", samples=32)
    with pytest.raises(RecipeError, match="1 were recorded"):
        quantized(tmp_path / "one", format="int8", cases=layered.cases(1))


def test_activations_without_a_range_name_their_layer(tmp_path):
    with pytest.raises(UnsupportedError, match=r"the input of \w+: \d+ of \d+ numbers are NaN or infinite at run, step 1"):
        quantized(tmp_path / "nan", format="int8", cases=layered.cases(scale=np.nan))
    with pytest.raises(UnsupportedError, match="the input of middle is 0 in all of 6 calls"):
        quantized(tmp_path / "zero", format="int8", graph={"spike": 0.0, "silent": True})


def test_a_dead_weight_names_its_layer(tmp_path):
    with pytest.raises(UnsupportedError, match="middle cannot be quantized: its weight is zero throughout"):
        quantized(tmp_path, format="int8-weights", graph={"dead": True})


def test_a_calibration_of_another_graph_is_refused(tmp_path):
    found, _ = quantized(tmp_path, format="int8-weights")
    other = found.model_copy(update={"layers": {**found.layers, "elsewhere": found.layers["middle"]}})
    with pytest.raises(UnsupportedError, match="speaks of elsewhere"):
        Quantize(format="int8-weights").apply(tmp_path / "export" / "unet.onnx", other, tmp_path / "unet.onnx")


def test_a_file_that_is_no_calibration_is_refused(tmp_path):
    (tmp_path / "c.json").write_text('{"part": "unet"}')
    with pytest.raises(RecipeError, match="not a calibration of this version"):
        read(tmp_path / "c.json", "here")
    with pytest.raises(RecipeError, match="is not a file"):
        read(tmp_path / "none.json", "here")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"format": "int9"}, "no format 'int9'; did you mean 'int8'"),
        ({"format": "nvfp4"}, "needs tensors on a CUDA device"),
        ({"format": "svdquant"}, "needs tensors on a CUDA device"),
        ({"format": "int8", "keep_above": 30, "budget": 0.5}, "keep_above and budget each say"),
        ({"format": "int8", "untouched": ["conv_in"]}, "untouched says what rest leaves, and rest is none"),
        ({"format": "int8", "samples": 1}, "greater than or equal to 2"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, said):
    with pytest.raises(ValidationError, match=said):
        Quantize(**options)


def test_it_answers_all_that_is_asked_of_a_pass():
    asked = [name for name in vars(Pass) if not name.startswith("_")]
    assert {"kind", "purpose", "told"} <= set(asked)
    for name in asked:
        getattr(Quantize(format="int8"), name)


def test_formats_without_activations_need_no_recording():
    assert not Quantize(format="int8-weights").recorded
    assert not Quantize(format="int4-weights", search=False).recorded
    assert Quantize(format="int4-weights").recorded
    assert Quantize(format="int8-weights", keep_above=40).recorded
    assert Quantize(format="int8").recorded
    assert not Quantize(format="int8", calibration="c.json").recorded


def test_a_target_that_does_not_take_a_format_is_named():
    with pytest.raises(UnsupportedError, match=r"openvino does not take fp8.*\n.*fp8 is for tensorrt, tensorrt_rtx"):
        formats.refuse("fp8", ["tensorrt_rtx", "openvino"])
    with pytest.raises(UnsupportedError, match=r"fp8 needs compute capability 8\.9; compute_capabilities names 8\.6"):
        plugins.load("backends", "tensorrt_rtx")(compute_capabilities=["8.6", "8.9"]).refuse("fp8")
    for name in formats.offered():
        assert any(name in backend.formats for backend in plugins.known("backends").values()), name


def test_the_schema_of_a_calibration_is_closed():
    assert Calibration.model_config["extra"] == "forbid"

"""OpenVINO: what it computes in, what it refuses, and what it leaves on disk."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from pydantic import ValidationError

from engines import plugins
from engines.backends import openvino as module
from engines.backends.openvino import OpenVino
from engines.errors import UnsupportedError
from engines.signature import Port, Signature
from tests.arithmetic import needs_bf16
from tests.backends.small_graph import SIGNATURE, expected, feed

vendor = pytest.importorskip("openvino")
PRODUCT = Signature(inputs=(Port(name="x", shape=(2, 256)),), outputs=(Port(name="y", shape=(2, 256)),), dims={})


def write_product(folder, kind):
    """y = x · w, computed in one ONNX type; the graph's path, and w."""
    weights = np.random.default_rng(0).standard_normal((256, 256), np.float32)
    nodes = [
        helper.make_node("Cast", ["x"], ["inside"], to=kind),
        helper.make_node("MatMul", ["inside", "w"], ["product"]),
        helper.make_node("Cast", ["product"], ["y"], to=TensorProto.FLOAT),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 256]) for name in "xy")
    held = numpy_helper.from_array(weights.astype(helper.tensor_dtype_to_np_dtype(kind)), "w")
    graph = helper.make_graph(nodes, "product", [x], [y], [held])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), folder / "part.onnx")
    return folder / "part.onnx", weights


@pytest.fixture
def built(graphs, tmp_path):
    return OpenVino().build(graphs(20), SIGNATURE, tmp_path / "engines")


class Core:
    """A processor with these capabilities."""

    def __init__(self, *capabilities):
        self.capabilities = capabilities

    def get_property(self, device, name):
        assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
        return list(self.capabilities)


@pytest.mark.parametrize(
    ("options", "has", "graph", "inside"),
    [
        ({}, ["FP32", "BF16"], "fp32", "fp32"),
        ({"precision": "auto"}, ["FP32", "BF16"], "fp32", "bf16"),
        ({"precision": "auto"}, ["FP32"], "fp32", "fp32"),
        ({"precision": "auto"}, ["FP32", "BF16"], "fp16", "bf16"),
        ({"precision": "auto"}, ["FP32"], "fp16", "fp16"),
        ({"precision": "f32"}, ["FP32", "BF16"], "fp32", "fp32"),
        ({"precision": "f32"}, ["FP32"], "bf16", "bf16"),
        ({"precision": "f16"}, ["FP32"], "fp32", "fp16"),
        ({"precision": "bf16"}, ["FP32"], "fp32", "bf16"),
        ({"precision": "f32", "weights": "f16"}, ["FP32"], "fp32", "fp16"),
        ({"precision": "bf16", "weights": "f16"}, ["FP32"], "fp32", "bf16"),
    ],
)
def test_the_class_of_an_engine_is_the_coarser_of_graph_and_arithmetic(monkeypatch, options, has, graph, inside):
    monkeypatch.setattr(module, "_library", lambda: type("Vendor", (), {"Core": lambda: Core(*has)}))
    assert OpenVino(**options).computes(graph) == inside


@pytest.mark.parametrize(("precision", "low", "high"), [("f32", 0, 1e-5), ("bf16", 1e-4, 2e-2)])
def test_it_computes_in_what_was_asked(tmp_path, precision, low, high):
    if precision == "bf16":
        needs_bf16()
    graph, weights = write_product(tmp_path, TensorProto.FLOAT)
    x = np.random.default_rng(1).standard_normal((2, 256), np.float32)
    files = OpenVino().build(graph, PRODUCT, tmp_path / "engines")
    with OpenVino(precision=precision).open(files, PRODUCT) as engine:
        error = np.abs(engine({"x": x})["y"] - x @ weights).max() / np.abs(x @ weights).max()
    assert low <= error <= high


def test_arithmetic_that_the_processor_does_not_do_is_refused(built):
    core = vendor.Core()
    if "FP16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor computes in f16")
    with pytest.raises(UnsupportedError, match=r"part\.xml: openvino would compute in b?f(16|32) .* not in f16"):
        OpenVino(precision="f16").open(built, SIGNATURE)


@pytest.mark.parametrize("precision", ["fp8", "fp4"])
def test_what_no_processor_computes_is_refused(precision):
    with pytest.raises(UnsupportedError, match=f"cannot run {precision}"):
        OpenVino().refuse(precision)
    OpenVino().refuse("int8")


def test_an_unknown_precision():
    with pytest.raises(ValidationError, match="'auto', 'f32', 'bf16' or 'f16'"):
        OpenVino(precision="fp64")


@pytest.mark.parametrize(("kind", "width"), [(TensorProto.FLOAT, 4), (TensorProto.FLOAT16, 2), (TensorProto.BFLOAT16, 2)])
def test_weights_keep_the_precision_of_the_graph(tmp_path, kind, width):
    graph, weights = write_product(tmp_path, kind)
    files = OpenVino().build(graph, PRODUCT, tmp_path / "engines")
    assert weights.size * width <= files[1].stat().st_size < weights.size * width + 64
    x = np.random.default_rng(1).standard_normal((2, 256), np.float32)
    with OpenVino(precision="f32").open(files, PRODUCT) as engine:
        np.testing.assert_allclose(engine({"x": x})["y"], x @ weights, rtol=0, atol=0.03 * np.abs(x @ weights).max())


def test_a_second_build_in_one_process_is_the_same_bytes(graphs, tmp_path, built):
    vendor.Core().read_model(graphs(20))  # moves the library's counter of names
    again = OpenVino().build(graphs(20), SIGNATURE, tmp_path / "again")
    assert [file.read_bytes() for file in again] == [file.read_bytes() for file in built]


def test_the_ranges_are_in_the_file(built):
    shapes = {tensor.any_name: tensor.partial_shape for tensor in vendor.Core().read_model(built[0]).inputs}
    assert str(shapes["latent"]) == "[1..4,4,4..16,4..16]"


def test_the_cache_is_off_beside_the_engine_and_not_needed(built):
    folder = built[0].parent
    inputs = feed()
    with OpenVino().open(built, SIGNATURE) as engine:
        engine(inputs)
    assert sorted(folder.iterdir()) == sorted(built)
    for _ in range(2):
        with OpenVino(cache=True).open(built, SIGNATURE) as engine:
            np.testing.assert_allclose(engine(inputs)["moved"], expected(inputs)["moved"], rtol=1e-2, atol=1e-2)
        assert list((folder / "cache").iterdir())


def test_a_cache_that_cannot_be_written_is_done_without(built, monkeypatch):
    monkeypatch.setattr(module.os, "access", lambda *_: False)
    with OpenVino(cache=True).open(built, SIGNATURE) as engine:
        engine(feed())
    assert sorted(built[0].parent.iterdir()) == sorted(built)


def test_a_damaged_model_is_named(built):
    built[0].write_bytes(built[0].read_bytes()[:300])
    with pytest.raises(UnsupportedError, match=r"part\.xml") as caught:
        OpenVino().open(built, SIGNATURE)
    assert caught.value.__cause__ is not None
    assert "Exception from" not in str(caught.value)


def test_weights_cut_short_are_named(built):
    built[1].write_bytes(built[1].read_bytes()[:10])
    with pytest.raises(UnsupportedError, match=r"part\.xml"):
        OpenVino().open(built, SIGNATURE)


def test_inputs_that_may_not_be_written_to_are_read(built):
    inputs = feed()
    for array in inputs.values():
        array.flags.writeable = False
    with OpenVino(precision="f32").open(built, SIGNATURE) as engine:
        np.testing.assert_allclose(engine(inputs)["moved"], expected(inputs)["moved"], rtol=1e-5, atol=1e-5)


def test_it_is_the_plugin():
    assert plugins.load("backends", "openvino") is OpenVino
    assert OpenVino().version == vendor.__version__.partition("-")[0]
    assert OpenVino().runs_on_cpu


@pytest.mark.parametrize(("threads", "pinned"), [(0, True), (1, False)])
def test_threads_that_are_counted_share_no_cores_with_another_process_s(built, threads, pinned):
    with OpenVino(precision="f32", threads=threads).open(built, SIGNATURE) as engine:
        assert engine.idle[0].request.get_compiled_model().get_property("ENABLE_CPU_PINNING") is pinned


def test_each_step_tells_its_kernel_and_the_numbers_it_computes_with(graphs, tmp_path):
    backend = OpenVino()
    steps = backend.profile(backend.build(graphs(20), SIGNATURE, tmp_path), SIGNATURE, feed())
    assert {"float"} == {step.numbers for step in steps}
    assert any(step.kernel.endswith("_f32") for step in steps)
    assert sum(step.seconds for step in steps) > 0

"""TensorRT-RTX: its options, its refusals, and the traps of its builder."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from engines.backends import _tensorrt, tensorrt_rtx
from engines.backends.tensorrt_rtx import TensorrtRtx
from engines.errors import UnsupportedError
from tests.backends.small_graph import SIGNATURE, write_graph

trt = pytest.importorskip("tensorrt_rtx")


def test_known_targets_are_the_librarys():
    assert [f"SM{known.replace('.', '')}" for known in tensorrt_rtx._KNOWN] == list(trt.ComputeCapability.__members__)[2:]


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("sm89", "'8.9'"),
        ("89", "'8.9'"),
        ("120", "'12.0'"),
        ("8.65", "'8.6'"),
        ("9.0", "target tensorrt"),
        ("10.0", "target tensorrt"),
    ],
)
def test_a_wrong_target_gets_a_hint(value, hint):
    with pytest.raises(ValidationError, match=hint):
        TensorrtRtx(compute_capabilities=(value,))


def test_one_set_of_targets_has_one_spelling():
    assert TensorrtRtx(compute_capabilities=("12.0", "8.6", "12.0")) == TensorrtRtx(compute_capabilities=("8.6", "12.0"))


@pytest.mark.parametrize(
    ("targets", "precision", "message"),
    [
        (("8.6", "8.9"), "fp8", r"needs compute capability 8\.9.*names 8\.6(.|\n)*Name \['8\.9'\]"),
        (("8.9",), "fp4", r"needs compute capability 12\.0(.|\n)*Name \['12\.0', '12\.1'\]"),
        (("7.5",), "bf16", r"needs compute capability 8\.0"),
        (("7.5", "8.0"), "int4", r"names 7\.5"),
        ((), "fp8", r"portable default(.|\n)*'8\.9', '12\.0', '12\.1'"),
        ((), "fp4", r"portable default(.|\n)*\['12\.0', '12\.1'\]"),
        ((), "fp17", "did you mean 'fp16'"),
    ],
)
def test_refuses_before_time_is_spent(targets, precision, message):
    with pytest.raises(UnsupportedError, match=message):
        TensorrtRtx(compute_capabilities=targets).refuse(precision)


@pytest.mark.parametrize(
    ("targets", "precision"),
    [((), "fp16"), ((), "bf16"), ((), "int4"), (("8.9", "12.0"), "fp8"), (("12.1",), "fp4"), (("7.5",), "int8")],
)
def test_takes_what_every_target_has(targets, precision):
    TensorrtRtx(compute_capabilities=targets).refuse(precision)


def test_builds_for_the_named_targets(graphs, tmp_path):
    portable, named = (
        TensorrtRtx(compute_capabilities=targets).build(graphs(20), SIGNATURE, tmp_path / str(len(targets)))[0]
        for targets in ((), ("7.5", "12.0"))
    )
    assert named.name == "part.engine"
    assert portable.read_bytes() != named.read_bytes()


def test_an_output_that_is_secretly_half_is_refused(tmp_path):
    # The graph declares float32, its nodes compute float16, and the parser believes the nodes.
    graph = write_graph(tmp_path / "half.onnx", 20, half=True)
    with pytest.raises(UnsupportedError, match=r"half\.onnx(.|\n)*'moved' is HALF(.|\n)*float32"):
        TensorrtRtx().build(graph, SIGNATURE, tmp_path / "engines")


@pytest.mark.parametrize("shape", [("batch", 4, "2*rows"), ("batch", 5, "2*rows", "columns")])
def test_another_shape_is_refused(graphs, tmp_path, shape):
    first, *others = SIGNATURE.inputs
    wrong = SIGNATURE.model_copy(update={"inputs": (first.model_copy(update={"shape": shape}), *others)})
    with pytest.raises(UnsupportedError, match=r"'latent' is \[-1, 4, -1, -1\]"):
        TensorrtRtx().build(graphs(20), wrong, tmp_path)


def test_a_full_disk_is_an_error_although_the_library_reports_success(graphs, tmp_path, monkeypatch):
    make = _tensorrt._writer
    with open("/dev/full", "wb", buffering=0) as full:  # noqa: PTH123 - a device
        monkeypatch.setattr(_tensorrt, "_writer", lambda vendor, file: make(vendor, full))  # noqa: ARG005
        with pytest.raises(OSError, match="No space left"):
            TensorrtRtx().build_here(graphs(20), SIGNATURE, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_failed_build_quotes_the_library_and_leaves_nothing(graphs, tmp_path, monkeypatch):
    monkeypatch.setattr(_tensorrt, "_add_profile", lambda *_: None)
    with pytest.raises(UnsupportedError, match=r"part\.onnx(.|\n)*no optimization profile"):
        TensorrtRtx().build_here(graphs(20), SIGNATURE, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_damaged_header_is_known_without_a_gpu(graphs, tmp_path):
    (engine,) = TensorrtRtx().build(graphs(20), SIGNATURE, tmp_path)
    tensorrt_rtx._inspect(trt, engine)
    for damage in (b"", b"x" * 64, b"\0" + engine.read_bytes()[1:]):
        engine.write_bytes(damage)
        with pytest.raises(UnsupportedError, match="rebuild"):
            tensorrt_rtx._inspect(trt, engine)

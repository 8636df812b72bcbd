"""Limits by precision class, and the table when several backends are in it. What the numbers are is for tests/e2e."""

import pytest

from engines.bundle import EngineFiles, Onnx, PartEntry
from engines.signature import Port, Signature
from exporter.parity import compare

SIGNATURE = Signature(inputs=(Port(name="latent", shape=(1, 4, 8, 8)),), outputs=(Port(name="out", shape=(1, 4, 8, 8)),), dims={})


def entry(precision, **options):
    return PartEntry(
        role="denoiser",
        signature=SIGNATURE,
        precision=precision,
        parameters=1,
        onnx={"20": Onnx(files=("a.onnx",), nodes_exported=1, nodes=1)},
        engines={name: EngineFiles(options=own, opset=20, files=("a.onnx",), version="1") for name, own in options.items()},
    )


@pytest.mark.parametrize(
    ("precision", "backend", "options", "inside"),
    [
        ("fp32", "onnxruntime", {}, "fp32"),
        ("fp16", "onnxruntime", {}, "fp16"),
        ("fp32", "openvino", {"precision": "f32"}, "fp32"),
        ("fp32", "openvino", {"precision": "bf16"}, "bf16"),
        ("fp16", "openvino", {"precision": "f32"}, "fp16"),
        ("fp32", "tensorrt", {"tf32": True}, "fp16"),
        ("bf16", "tensorrt", {"tf32": True}, "bf16"),
        ("fp32", "tensorrt_rtx", {}, "fp32"),
    ],
)
def test_an_engine_is_held_to_the_coarser_of_graph_and_arithmetic(precision, backend, options, inside):
    if backend == "openvino":
        pytest.importorskip("openvino")
    assert compare._class(entry(precision, **{backend: options}), backend) == inside

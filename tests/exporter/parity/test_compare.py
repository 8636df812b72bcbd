"""Limits by precision class, and the table when several backends are in it. What the numbers are is for tests/e2e."""

import numpy as np
import pytest

from engines.bundle import EngineFiles, Onnx, PartEntry, Verdict
from engines.signature import Port, Signature
from exporter.parity import compare, metrics, table
from exporter.recipe import limits

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


def test_every_stage_has_a_floor_for_every_class_and_they_fall():
    for stage, floors in limits.LIMITS.items():
        quantized = set() if stage in {"passes", "table"} else {"int8-weights", "int8", "fp8", "int4-weights"}
        assert set(floors) == {"fp32", "fp16", "bf16"} | quantized, stage
        values = [floors[precision] for precision in limits.COARSENESS if precision in floors]
        assert values == sorted(values, reverse=True), stage


def test_nan_fails_on_whichever_side_it_is():
    good, bad = np.linspace(0, 1, 4), np.array([0.0, np.nan, 1.0, np.inf])
    assert metrics.psnr(bad, good) == metrics.psnr(good, bad, 1.0) == -metrics.PERFECT
    for pair, said in (((bad, good), "2 of 4 values are NaN"), ((good, bad), "2 of 4 values that it is held to are NaN")):
        found = compare.judge("vae_decoder", "onnx", "c", [pair], {})
        assert not found.passed
        assert not found.values
        assert said in found.note


def verdict(part, stage, backend, db, note="", similar=None):
    values = {"relative_l2": 0.1, "psnr": db, **({} if similar is None else {"ssim": similar})}
    return Verdict(part=part, stage=stage, case="c", backend=backend, values=values, limit={"psnr": 30.0}, passed=True, note=note)


def test_the_table_has_a_line_for_each_backend_and_names_it():
    verdicts = [
        verdict("unet", "onnx → engine", "onnxruntime", 120.0, "onnxruntime"),
        verdict("end to end", "image", "onnxruntime", 110.0, similar=1.0),
        verdict("unet", "onnx → engine", "openvino", 46.0, "openvino, bf16 inside"),
        verdict("unet", "onnx → engine", "openvino", 47.0, "openvino, bf16 inside"),
        verdict("end to end", "image", "openvino", 45.0, similar=0.999),
    ]
    assert [(line.part, line.backend, line.values["psnr"]) for line in table.worst(verdicts)] == [
        ("unet", "onnxruntime", 120.0),
        ("unet", "openvino", 46.0),
        ("end to end", "onnxruntime", 110.0),
        ("end to end", "openvino", 45.0),
    ]
    drawn = table.table(verdicts)
    assert drawn.count("unet") == drawn.count("end to end") == 1
    assert "openvino; SSIM 0.9990" in drawn
    assert "openvino; openvino" not in drawn
    assert "onnxruntime" not in table.table([verdicts[1]])


@pytest.mark.parametrize(
    ("precision", "form", "wanted"),
    [
        ("fp32", "", "fp32"), ("fp16", "", "fp16"), ("fp32", "int8", "int8"), ("fp16", "int8-smoothquant", "int8"),
        ("fp32", "int8-hybrid", "int8"), ("fp16", "int8-weights", "int8-weights"), ("bf16", "int8-weights", "bf16"),
        ("fp32", "int4-weights", "int4-weights"), ("fp16", "fp8", "fp8"),
    ],
)  # fmt: skip
def test_a_quantized_graph_is_held_to_its_format(precision, form, wanted):
    assert limits.class_of(precision, form) == wanted

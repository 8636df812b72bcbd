"""What a stage's result depends on besides its options and inputs: whose code, and which libraries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engines.backends import installed
from exporter.stages.store import Key, code_version, key

_LIBRARIES = ("torch", "diffusers", "transformers", "onnx-ir", "onnxscript", "tokenizers")
_MODEL_CODE = (
    "families",
    "models/checkpoint.py",
    "models/weights.py",
    "models/safetensors_header.py",
    "models/single_file.py",
    "models/lora.py",
    "models/lora_fuse.py",
    "part.py",
)
_PASS_CODE = ("passes", "pruning", "training", "quantization", "stages/passes.py")
_TRACE_CODE = ("onnx/capture.py", "onnx/mixed_precision.py")
#: Whose code a stage's result depends on.
_CODE: Mapping[str, tuple[str, ...]] = {
    "tokenize": (*_MODEL_CODE, "stages/plan.py", "stages/keys.py"),
    "record": (
        *_MODEL_CODE,
        "reference/record.py",
        "reference/recording.py",
        "schedulers/loop.py",
        "../engines/images/tiling.py",
    ),
    "compile": (
        "schedulers/compile_sampler.py",
        "schedulers/trace.py",
        "schedulers/loop.py",
        "schedulers/preview.py",
        "../engines/samplers/table.py",
        "../engines/sampler_ops.py",
    ),
    "process": (
        "schedulers/noise_schedule.py",
        "schedulers/compile_sampler.py",
        "schedulers/loop.py",
        "../engines/noise_process.py",
    ),
    "encode": (
        *_MODEL_CODE,
        "training/context.py",
        "training/encode.py",
        "training/captioned_images.py",
        "training/hf_datasets.py",
    ),
    "play": (*_MODEL_CODE, "training/context.py", "training/teacher_rollouts.py", "training/noise_schedule.py"),
    "pass": (
        *_MODEL_CODE,
        *_PASS_CODE,
        "models/compatibility.py",
        "reference/recording.py",
        "families/_cost.py",
        "training/context.py",
    ),
    "islands": (*_MODEL_CODE, *_PASS_CODE, *_TRACE_CODE, "stages/precision.py", "reference/recording.py"),
    "measure": (*_MODEL_CODE, *_PASS_CODE, *_TRACE_CODE, "reference/part_outputs.py", "reference/recording.py"),
    "export": (*_MODEL_CODE, *_PASS_CODE, *_TRACE_CODE, "onnx/export.py", "graph"),
    "calibrate": (
        "passes",
        "quantization",
        "quantization/formats.py",
        "onnx/export.py",
        "onnx/fuse_pipeline.py",
        "reference/recording.py",
        "parity/compare.py",
    ),
    "quantize": ("passes", "quantization", "quantization/formats.py", "onnx/export.py", "onnx/fuse_pipeline.py"),
    "weigh": ("quantization/gate.py", "parity/compare.py", "reference/recording.py", "../engines"),
    "unroll": ("onnx/fuse_pipeline.py", "graph", "../engines/samplers/table.py"),
    "engine": ("../engines/backends",),
    "check": ("parity/compare.py", "reference/recording.py", "../engines"),
    "race": ("bench/run.py", "bench/diffusers.py", "bench/stopwatch.py", "bench/speed_gate.py", "../engines"),
}


def key_of(
    verb: str, subject: str, options: Mapping[str, Any], inputs: Mapping[str, str], versions: Mapping[str, str] | None = None
) -> Key:
    """Key of a stage, with the code and the libraries that its verb depends on."""
    here = Path(__file__).parents[1]
    code = {part: code_version((here / part).resolve()) for part in _CODE[verb]}
    versions = versions or {library: installed("compile", library) for library in _LIBRARIES}
    return key(verb, subject, options=options, inputs=inputs, code=code, versions=versions)

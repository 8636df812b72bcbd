"""What a stage's result depends on besides its options and inputs: whose code, and which libraries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engines.backends import installed
from exporter.cache import Key, code_version, key

_LIBRARIES = ("torch", "diffusers", "transformers", "onnx-ir", "onnxscript", "tokenizers")
_MODEL_CODE = ("families", "models", "load.py", "weights.py", "safetensor.py", "single_file.py", "lora.py", "fuse.py", "part.py")
_PASS_CODE = ("passes", "remake.py")
_TRACE_CODE = ("traced.py", "islands.py")
#: Whose code a stage's result depends on.
_CODE: Mapping[str, tuple[str, ...]] = {
    "tokenize": (*_MODEL_CODE, "plan.py", "keys.py"),
    "record": (*_MODEL_CODE, "record.py", "recording.py", "loop.py", "../engines/tiles.py"),
    "compile": ("sampler.py", "trace.py", "loop.py", "preview.py", "../engines/samplers/table.py", "../engines/samplers/_ops.py"),
    "process": ("process.py", "sampler.py", "loop.py", "../engines/samplers/_process.py"),
    "encode": (*_MODEL_CODE, "lesson.py", "passes/_encode.py", "passes/_pictures.py", "passes/_datasets.py"),
    "play": (*_MODEL_CODE, "lesson.py", "passes/_play.py", "passes/_schedule.py"),
    "pass": (*_MODEL_CODE, *_PASS_CODE, "borrow.py", "recording.py", "count.py", "lesson.py"),
    "islands": (*_MODEL_CODE, *_PASS_CODE, *_TRACE_CODE, "precision.py", "recording.py"),
    "measure": (*_MODEL_CODE, *_PASS_CODE, *_TRACE_CODE, "measure.py", "recording.py"),
    "export": (*_MODEL_CODE, *_PASS_CODE, *_TRACE_CODE, "export.py", "graph"),
    "calibrate": ("passes", "formats.py", "export.py", "unroll.py", "recording.py", "parity.py"),
    "quantize": ("passes", "formats.py", "export.py", "unroll.py"),
    "weigh": ("weigh.py", "parity.py", "recording.py", "../engines"),
    "unroll": ("unroll.py", "graph", "../engines/samplers/table.py"),
    "engine": ("../engines/backends",),
    "check": ("parity.py", "recording.py", "../engines"),
    "race": ("bench.py", "baseline.py", "stopwatch.py", "gate.py", "../engines"),
}


def key_of(
    verb: str, subject: str, options: Mapping[str, Any], inputs: Mapping[str, str], versions: Mapping[str, str] | None = None
) -> Key:
    """Key of a stage, with the code and the libraries that its verb depends on."""
    here = Path(__file__).parent
    code = {part: code_version((here / part).resolve()) for part in _CODE[verb]}
    versions = versions or {library: installed("compile", library) for library in _LIBRARIES}
    return key(verb, subject, options=options, inputs=inputs, code=code, versions=versions)

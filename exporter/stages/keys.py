"""What a stage's result depends on besides its options and inputs: whose code, and which libraries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from engines.backends import installed
from exporter.stages.closure import here
from exporter.stages.store import Key, key

_LIBRARIES = ("torch", "diffusers", "transformers", "onnx-ir", "onnxscript", "tokenizers")


def key_of(
    verb: str,
    subject: str,
    options: Mapping[str, Any],
    inputs: Mapping[str, str],
    makers: Iterable[object],
    versions: Mapping[str, str] | None = None,
) -> Key:
    """Key of a stage: options, inputs, libraries, and all the code that its makers reach.

    `makers` are the functions that make the result and the classes of the objects that these are given, as for `Sources.code`.
    """
    return key(verb, subject, options=options, inputs=inputs, code=here().code(makers), versions=versions or _libraries())


@cache
def _libraries() -> Mapping[str, str]:
    """Their versions; reading them once more for every stage would take longer than all the rest of a plan."""
    return {library: installed("compile", library) for library in _LIBRARIES}

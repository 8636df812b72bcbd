"""Which graph suits all the engines that are made of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from engines import plugins

if TYPE_CHECKING:
    from engines.backends import Backend
    from engines.bundle import PartEntry

#: Passes into operators that only a GPU has: no processor can run the graph.
_GPU = {"group_norm"}


def fused(backends: Iterable[Backend], opset: int, pipeline: str) -> tuple[str, ...]:
    """Graph passes into operators that every engine of a part's graph has.

    The parts of a fused pipeline have no engines, so each is compared on a CPU alone, and has only what that has too.

    Args:
        backends: of the part.
        opset: of the graph.
        pipeline: the recipe's, `stepped` or `fused`.

    """
    found = {backend.fused for backend in backends if backend.opset == opset}
    passes = next(iter(found)) if len(found) == 1 else ()
    return tuple(each for each in passes if pipeline == "stepped" or each not in _GPU)


def unread(entry: PartEntry, opset: int) -> str:
    """Why the reference runtime cannot run a part's graph on a processor, or nothing."""
    if entry.precision == "bf16":
        return "ONNX Runtime has no bf16 kernels on a processor"
    if entry.role in {"pipeline", "text"}:  # joined from graphs of anybody's; and no picture, whose norms are meant
        return ""
    of_graph = {name: built.options for name, built in entry.engines.items() if built.opset == opset}
    found = [set(plugins.load("backends", name).model_validate(options).fused) for name, options in of_graph.items()]
    return "its group norms are CUDA's own" if found and _GPU & set.intersection(*found) else ""

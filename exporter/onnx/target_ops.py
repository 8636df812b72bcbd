"""Which graph suits all the engines that are made of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from engines import plugins

if TYPE_CHECKING:
    from engines.backends import Backend
    from engines.bundle import PartEntry


def _beyond(passes: Iterable[str]) -> list[str]:
    """Those of passes into a library's own operators after which the reference runtime cannot run the graph on a CPU."""
    reference = plugins.load("backends", "onnxruntime")(fused_attention=True)
    return [each for each in passes if each not in reference.fused]


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
    beyond = () if pipeline == "stepped" else _beyond(passes)
    return tuple(each for each in passes if each not in beyond)


def unread(entry: PartEntry, opset: int) -> str:
    """Why the reference runtime cannot run a part's graph on a processor, or nothing."""
    if entry.precision == "bf16":
        return "ONNX Runtime has no bf16 kernels on a processor"
    if entry.role in {"pipeline", "text"}:  # joined from graphs of anybody's; and no picture, whose norms are meant
        return ""
    of_graph = {name: built.options for name, built in entry.engines.items() if built.opset == opset}
    found = [set(plugins.load("backends", name).model_validate(options).fused) for name, options in of_graph.items()]
    beyond = _beyond(sorted(set.intersection(*found))) if found else []
    return f"{' and '.join(beyond)} made operators that no CPU has" if beyond else ""

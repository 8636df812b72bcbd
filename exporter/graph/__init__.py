"""One graph pass per file: onnx_ir.Model → onnx_ir.Model, with the graph's meaning unchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

#: In this order: folding makes up names, and leaves duplicates, deduplication and transposing leave the unused.
GRAPH_PASSES = ("name_weights", "fold", "deduplicate", "transpose", "remove_unused")
#: Before them but after folding, where every engine of the graph runs on a processor: fewer products, and more small operators.
PROCESSOR_PASSES = ("upsample",)


def order(*, processor: bool, fused: Sequence[str]) -> tuple[str, ...]:
    """Names of the passes that an exported graph gets; the last are into operators that its engines all have."""
    named, folded, *rest = GRAPH_PASSES
    return (named, folded, *(PROCESSOR_PASSES if processor else ()), *rest, *fused)


class GraphPass(Protocol):
    """A function on a model; it may edit in place, and returns the model to go on with."""

    def __call__(self, model: ir.Model) -> ir.Model:
        """Transform."""
        ...

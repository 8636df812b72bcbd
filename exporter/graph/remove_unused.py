"""Drop what no output depends on, and what the exporter left for debugging."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx_ir.passes import Sequential
from onnx_ir.passes.common import (
    ClearMetadataAndDocStringPass,
    IdentityEliminationPass,
    RemoveUnusedFunctionsPass,
    RemoveUnusedNodesPass,
    RemoveUnusedOpsetsPass,
)

from exporter.graph import placed

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["remove_unused"]


@placed(after=["deduplicate", "transpose"])  # which leave the unused
def remove_unused(model: ir.Model) -> ir.Model:
    """Remove dead nodes, functions, operator sets, identities, and metadata (stack traces with this machine's paths)."""
    passes = Sequential(
        IdentityEliminationPass(),
        RemoveUnusedNodesPass(),
        RemoveUnusedFunctionsPass(),
        RemoveUnusedOpsetsPass(),
        ClearMetadataAndDocStringPass(),
    )
    return passes(model).model

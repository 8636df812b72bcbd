"""Keep one of several equal things: initializers by content, nodes by inputs and attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx_ir.passes import Sequential
from onnx_ir.passes.common import CommonSubexpressionEliminationPass, DeduplicateInitializersPass

from exporter.graph import placed

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["deduplicate"]

#: Elements. Larger tensors are weights, which are equal only by accident; hashing them would read the whole model.
SIZE_LIMIT = 4096


@placed(after=["fold"])  # which leaves duplicates
def deduplicate(model: ir.Model) -> ir.Model:
    """Merge equal small initializers and common subexpressions."""
    return Sequential(DeduplicateInitializersPass(size_limit=SIZE_LIMIT), CommonSubexpressionEliminationPass())(model).model

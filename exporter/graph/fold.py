"""Compute at export what does not depend on the inputs: shapes, casts, constant arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxscript import optimizer

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["fold"]


def fold(model: ir.Model) -> ir.Model:
    """Fold constants and inline the exporter's functions (onnxscript's optimizer); large weights stay as they are."""
    optimizer.optimize_ir(model)
    return model

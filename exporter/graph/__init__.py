"""One graph pass per file: onnx_ir.Model → onnx_ir.Model, with the graph's meaning unchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import onnx_ir as ir


class GraphPass(Protocol):
    """A function on a model; it may edit in place, and returns the model to go on with."""

    def __call__(self, model: ir.Model) -> ir.Model:
        """Transform."""
        ...

"""Keep the names of weights through folding, so that a reader can tell which layer a matrix belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.graph import placed

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["name_weights"]

#: What a transposed weight is called after the weight.
TRANSPOSED = ".T"


@placed()
def name_weights(model: ir.Model) -> ir.Model:
    """Call what a Transpose makes of an initializer after it: folding then leaves `down.to_q.weight.T`, not `val_323`."""
    for node in model.graph:
        if node.op_type == "Transpose" and node.inputs[0] is not None and node.inputs[0].is_initializer():
            name = f"{node.inputs[0].name}{TRANSPOSED}"
            if all(value.name != name for other in model.graph for value in other.outputs):
                node.outputs[0].name = name
    return model

"""Compute at export what does not depend on the inputs: shapes, casts, constant arithmetic."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
from onnx_ir.passes import Sequential
from onnx_ir.passes.common import InlinePass, LiftConstantsToInitializersPass
from onnxscript.optimizer import fold_constants_ir
from onnxscript.rewriter import RewritePass
from onnxscript.rewriter.pattern import RewriteRule
from onnxscript.rewriter.rules import common as rules

from exporter.graph import placed

__all__ = ["fold"]


def _neutral(operator: str, number: float) -> RewriteRule:
    """`x ∘ number` is x, of that very number: onnxscript's own rules take 1e-15 for 0, and let others divide by 0."""

    def pattern(op: Any, x: Any, other: Any) -> Any:  # noqa: ANN401 - onnxscript's, as below
        return getattr(op, operator)(x, other)

    def holds(_context: Any, other: Any, **_: Any) -> bool:  # noqa: ANN401
        value = ir.convenience.get_const_tensor(other)
        return value is not None and not value.shape.rank() and value.numpy().item() == number

    return RewriteRule(pattern, lambda op, x, **_: op.Identity(x), holds)


#: The rules of onnxscript's optimizer that find something in diffusion networks. Its whole set is not used because of one rule,
#: which joins slices into a split by trying all pairs of nodes: 80% of the time of an export, for nothing found.
RULES = (
    _neutral("Add", 0),
    rules.cast_cast_rule,
    _neutral("Div", 1),
    rules.materialize_reshape_shape_rule,
    _neutral("Mul", 1),
    rules.no_op_cast_rule,
    rules.no_op_expand_rule,
    rules.no_op_transpose_rule,
    rules.reshape_reshape_rule,
    rules.squeeze_reshape_1d_rule,
    _neutral("Sub", 0),
    rules.transpose_transpose_rule,
    rules.unsqueeze_unsqueeze_rule,
)


@placed(after=["name_weights"])  # which makes up names
def fold(model: ir.Model) -> ir.Model:
    """Inline the exporter's functions and fold constants (onnxscript's passes); large weights stay as they are."""
    InlinePass()(model)
    fold_constants_ir(model, onnx_shape_inference=True)
    RewritePass(RULES)(model)
    RewritePass(RULES)(_nothing())  # the rules remember the graph that they last looked at, and with it all its weights
    fold_constants_ir(model, onnx_shape_inference=True)  # what the rules made constant
    return Sequential(LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0))(model).model


def _nothing() -> ir.Model:
    """The smallest graph that a rule looks at."""
    value = ir.Value(name="x")
    node = ir.node("Identity", [value])
    return ir.Model(ir.Graph([value], node.outputs, nodes=[node], opset_imports={"": 20}), ir_version=10)

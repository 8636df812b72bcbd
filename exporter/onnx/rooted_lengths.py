"""Lengths that a trace asks of tensors which have shapes alone: computed of the graph's inputs.

Torch writes each open length once, as that of the first tensor that has it. Where a network that is not loaded is run for the
shape of what it gives, that may be one of its tensors, and a graph cannot ask what it does not compute.
"""

from __future__ import annotations

import operator
from typing import Any

import torch

from exporter.onnx.calls import call


def root(graph: torch.fx.Graph) -> None:
    """Make each such length, where it is a multiple of a symbol, of an input's length that is one of the same symbol."""
    size = torch.ops.aten.sym_size.int
    inputs = _multiples(graph)
    for node in graph.find_nodes(op="call_function", target=size):
        given: Any = node.args[0]
        if not given.meta["val"].is_meta or (own := _multiple(node.meta["val"])) is None or own[0] not in inputs:
            continue
        symbol, times = own
        length, axis, steps = inputs[symbol]
        made = call(node, operator.mul, call(node, size, length, axis), times)
        node.replace_all_uses_with(call(node, operator.floordiv, made, steps))
        graph.erase_node(node)


def _multiples(graph: torch.fx.Graph) -> dict[Any, tuple[torch.fx.Node, int, int]]:
    """Symbol → an input, its axis whose length is a multiple of it, and which multiple."""
    found: dict[Any, tuple[torch.fx.Node, int, int]] = {}
    for node in graph.find_nodes(op="placeholder"):
        value = node.meta.get("val")
        for axis, length in enumerate(value.shape if isinstance(value, torch.Tensor) and not value.is_meta else ()):
            if (own := _multiple(length)) is not None:
                found.setdefault(own[0], (node, axis, own[1]))
    return found


def _multiple(length: Any) -> tuple[Any, int] | None:  # noqa: ANN401 - a number, or one of torch's
    """The one symbol of which an open length is a whole multiple, and the factor."""
    expression = length.node.expr if isinstance(length, torch.SymInt) else None
    if expression is None or len(expression.free_symbols) != 1:
        return None
    (symbol,) = expression.free_symbols
    factor = expression.coeff(symbol)
    return (symbol, int(factor)) if factor.is_Integer and factor * symbol == expression else None

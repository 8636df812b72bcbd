"""A transposition of the last two axes as one node, which the exporter writes as fifteen where it does not know the rank."""

from __future__ import annotations

import onnx_ir as ir

from exporter.graph import placed
from exporter.graph._match import made_by, permutation

__all__ = ["transpose"]

_FLAT = (0, 2, 1)
#: Bounds of a Slice that no length reaches.
_LEAST, _MOST = -(2**63), 2**63 - 1
#: What a Slice of a tensor's shape takes: every axis but the last two, the last but one, the last.
_REST, _ROWS, _COLUMNS = (_LEAST, -2), (-2, -1), (-1, _MOST)


@placed(after=["deduplicate"])
def transpose(model: ir.Model) -> ir.Model:
    """Replace a Reshape to three axes, a Transpose of its last two, and the Reshape back, where the rank can be seen after all.

    Keys of attention are turned this way. The shape's arithmetic goes with it, which `remove_unused` removes: libraries spend
    longer on such nodes when they load a graph than on all others.
    """
    for node in list(model.graph):
        if node.op_type == "Reshape" and node.domain == "":
            _replace(model.graph, node)
    return model


def _replace(graph: ir.Graph, after: ir.Node) -> None:
    turned = made_by(after.inputs[0], "Transpose")
    before = made_by(turned.inputs[0], "Reshape") if turned is not None and permutation(turned) == _FLAT else None
    source = before.inputs[0] if before is not None else None
    rank = len(permutation(made_by(source, "Transpose")))
    if before is None or source is None or rank < 3:
        return
    if _lengths(before, source) != [-1, _ROWS, _COLUMNS] or _lengths(after, source) != [_REST, _COLUMNS, _ROWS]:
        return
    order = [*range(rank - 2), rank - 1, rank - 2]
    made = ir.node("Transpose", [source], attributes={"perm": order})
    result, new = after.outputs[0], made.outputs[0]
    new.name, new.type, new.shape = f"{result.name}_turned", result.type, result.shape
    graph.insert_before(after, made)
    result.replace_all_uses_with(new, replace_graph_outputs=True)


def _lengths(reshape: ir.Node, of: ir.Value) -> list[object]:
    """What a Reshape's target is joined of: numbers, and pieces of that tensor's shape by their bounds."""
    joined = made_by(reshape.inputs[1], "Concat")
    return [_piece(value, of) for value in joined.inputs] if joined is not None else []


def _piece(value: ir.Value | None, of: ir.Value) -> object:
    if value is not None and value.const_value is not None:
        return value.const_value.numpy().tolist()[0]
    piece = made_by(value, "Slice")
    shape = made_by(piece.inputs[0], "Shape") if piece is not None else None
    if piece is None or shape is None or shape.inputs[0] is not of:
        return None
    return tuple(_number(bound) for bound in piece.inputs[1:3])


def _number(value: ir.Value | None) -> int | None:
    found = value.const_value.numpy() if value is not None and value.const_value is not None else None
    return int(found.item()) if found is not None and found.size == 1 else None

"""Softmax attention as one operator, com.microsoft's MultiHeadAttention, whose score matrix is never written to memory."""

from __future__ import annotations

import onnx_ir as ir

from exporter.graph import placed
from exporter.graph._match import made_by, only_user, permutation

__all__ = ["attend"]

_HEADS, _KEYS = (0, 2, 1, 3), (0, 2, 1)


@placed("fused")
def attend(model: ir.Model) -> ir.Model:
    """Replace softmax(q·kᵀ·s)·v, as torch's exporter writes scaled_dot_product_attention without a mask.

    At 1024 px the scores of one layer of SDXL are 2 × 10 × 4096 × 4096 numbers, which a fused kernel keeps on the chip. Attention
    with a mask, and any that is written otherwise, stays as it is.
    """
    for node in list(model.graph):
        if node.op_type == "Softmax" and node.domain == "":
            _replace(model.graph, node)
    if any(node.domain == "com.microsoft" for node in model.graph):
        model.graph.opset_imports["com.microsoft"] = 1
    _drop(model)
    return model


def _replace(graph: ir.Graph, softmax: ir.Node) -> None:
    scores = made_by(softmax.inputs[0], "MatMul")
    mixed = only_user(softmax.outputs[0], "MatMul")
    if scores is None or mixed is None or mixed.inputs[0] is not softmax.outputs[0]:
        return
    joined = only_user(mixed.outputs[0], "Transpose")
    flat = only_user(joined.outputs[0], "Reshape") if joined is not None and permutation(joined) == _HEADS else None
    query, query_scale = _scaled(scores.inputs[0])
    keys, key_scale = _scaled(scores.inputs[1])
    query, keys, value = _split(query), _split(_transposed(keys)), _split(mixed.inputs[1])
    if flat is None or query is None or keys is None or value is None or query_scale is None or key_scale is None:
        return
    heads, width = _lengths(query)[2:]
    # Heads and their width are constants, and are joined again at the end: three axes, four, and three.
    if heads is None or width is None or len(found := _lengths(flat)) != 3 or found[2] != heads * width:
        return
    made = ir.node(
        "MultiHeadAttention",
        [query.inputs[0], keys.inputs[0], value.inputs[0]],
        {"num_heads": heads, "scale": query_scale * key_scale},
        domain="com.microsoft",
        num_outputs=1,
    )
    result = flat.outputs[0]
    made.outputs[0].type, made.outputs[0].shape, made.outputs[0].name = result.type, result.shape, f"{result.name}_attention"
    graph.insert_before(flat, made)
    result.replace_all_uses_with(made.outputs[0], replace_graph_outputs=True)


def _scaled(value: ir.Value | None) -> tuple[ir.Value | None, float | None]:
    """What a constant multiplies, and the constant; 1 where nothing does, None where it is no single number."""
    node = made_by(value, "Mul")
    if node is None:
        return value, 1.0
    factor = node.inputs[1].const_value if node.inputs[1] is not None else None
    return node.inputs[0], float(factor.numpy().reshape(-1)[0]) if factor is not None and factor.size == 1 else None


def _transposed(value: ir.Value | None) -> ir.Value | None:
    """Of keys (B, H, D, L) those (B, H, L, D) that the exporter transposed, by way of three dimensions or in one step."""
    after = made_by(value, "Reshape")
    turned = made_by(after.inputs[0] if after is not None else value, "Transpose")
    if turned is None:
        return None
    if after is None:
        return turned.inputs[0] if permutation(turned) == (0, 1, 3, 2) else None
    before = made_by(turned.inputs[0], "Reshape") if permutation(turned) == _KEYS else None
    return before.inputs[0] if before is not None else None


def _split(value: ir.Value | None) -> ir.Node | None:
    """The Reshape from (B, L, H·D) to (B, L, H, D) whose result (B, H, L, D) this is."""
    node = made_by(value, "Transpose")
    found = made_by(node.inputs[0], "Reshape") if node is not None and permutation(node) == _HEADS else None
    return found if found is not None and len(_lengths(found)) == 4 else None


def _lengths(reshape: ir.Node) -> list[int | None]:
    """What a Reshape's target says of each axis; None where only the run knows."""
    target = reshape.inputs[1]
    if target is None:
        return []
    if target.const_value is not None:
        return [int(length) for length in target.const_value.numpy()]
    joined = made_by(target, "Concat")
    lengths = list[int | None]()
    for piece in joined.inputs if joined is not None else ():
        known = piece.const_value if piece is not None else None
        lengths += [None] if known is None else [int(length) for length in known.numpy()]
    return lengths


def _drop(model: ir.Model) -> None:
    from onnx_ir.passes.common import RemoveUnusedNodesPass  # noqa: PLC0415 - beside its one use

    RemoveUnusedNodesPass()(model)

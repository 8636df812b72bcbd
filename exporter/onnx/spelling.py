"""Operators in the spelling of which ONNX has a form, so that torch need not decompose a network to translate it."""

from __future__ import annotations

import operator
from typing import Any

import torch

from exporter.onnx.calls import call
from exporter.onnx.in_place import take_out

#: Another name for the same operator, and the one of which ONNX has a form.
_NAMES = {
    torch.ops.aten.__and__.Tensor: torch.ops.aten.bitwise_and.Tensor,
    torch.ops.aten.__or__.Tensor: torch.ops.aten.bitwise_or.Tensor,
    torch.ops.aten.item.default: torch.ops.aten._local_scalar_dense.default,  # noqa: SLF001 - its name
    torch.ops.aten.min.other: torch.ops.aten.minimum.default,
    torch.ops.aten.max.other: torch.ops.aten.maximum.default,
}


def spell(graph: torch.fx.Graph) -> None:
    """Spell a traced network's operators, within the fake tensors that it was traced with."""
    for node in [node for target in _NAMES for node in graph.find_nodes(op="call_function", target=target)]:
        node.target = _NAMES[node.target]
    _rewrite(graph)
    _root_mean_square(graph)
    _mesh(graph)
    _cast(graph)
    take_out(graph)
    _bias(graph)
    _head(graph)
    _widen(graph)


def _rewrite(graph: torch.fx.Graph) -> None:
    """Say in two operators what ONNX has no one of, and leave out what does nothing."""
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.rsub.Scalar):
        if len(node.args) == 2:
            negative = call(node, torch.ops.aten.neg.default, node.args[0])
            node.target, node.args = torch.ops.aten.add.Scalar, (negative, node.args[1])
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.outer.default):
        tall = call(node, torch.ops.aten.unsqueeze.default, node.args[0], 1)
        node.target, node.args = torch.ops.aten.mul.Tensor, (tall, node.args[1])
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.movedim.int):
        axes = [*range(node.meta["val"].ndim)]
        axes.insert(node.args[2] % len(axes), axes.pop(node.args[1] % len(axes)))
        node.target, node.args = torch.ops.aten.permute.default, (node.args[0], axes)
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.detach_.default):  # of a list that becomes a tensor
        node.replace_all_uses_with(node.args[0])
        graph.erase_node(node)
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.squeeze.dim):
        given, axis = node.args[0], node.args[1]
        if given.meta["val"].shape[axis] != 1:  # nothing to torch, and to ONNX an error
            node.replace_all_uses_with(given)
            graph.erase_node(node)


def _root_mean_square(graph: torch.fx.Graph) -> None:
    """Say a norm by the root of the mean square as torch computes it: in float32 where its input is in half precision."""
    aten = torch.ops.aten
    for node in graph.find_nodes(op="call_function", target=aten.rms_norm.default):
        given: Any = (*node.args, *[None] * (4 - len(node.args)))
        tensor, sizes, weight, eps = given
        weight, eps = node.kwargs.get("weight", weight), node.kwargs.get("eps", eps)
        own, wide = node.meta["val"].dtype, torch.promote_types(node.meta["val"].dtype, torch.float32)
        value = _as(node, tensor, wide)
        made = call(node, aten.mean.dim, call(node, aten.pow.Tensor_Scalar, value, 2), [*range(-len(sizes), 0)], keepdim=True)
        made = call(node, aten.add.Scalar, made, torch.finfo(wide).eps if eps is None else eps)
        made = call(node, aten.mul.Tensor, value, call(node, aten.rsqrt.default, made))
        made = call(node, aten.mul.Tensor, made, _as(node, weight, wide)) if weight else made
        node.replace_all_uses_with(_as(node, made, own))
        graph.erase_node(node)


def _mesh(graph: torch.fx.Graph) -> None:
    """Say a mesh of rows, columns and more as each of them times ones of the others, which need no length to be known."""
    aten = torch.ops.aten
    for node in graph.find_nodes(op="call_function", target=aten.meshgrid.indexing):
        if (*node.args[1:], *node.kwargs.values()) != ("ij",) or {user.target for user in node.users} - {operator.getitem}:
            continue
        sides: Any = node.args[0]
        tall = [
            call(node, aten.reshape.default, side, [-1 if place == own else 1 for place in range(len(sides))])
            for own, side in enumerate(sides)
        ]
        for user in [*node.users]:
            made = tall[user.args[1]]
            for other in tall:
                if other is not tall[user.args[1]]:
                    ones = call(node, aten.ones_like.default, other, dtype=made.meta["val"].dtype)
                    made = call(node, aten.mul.Tensor, made, ones)
            user.replace_all_uses_with(made)
            graph.erase_node(user)
        graph.erase_node(node)


def _cast(graph: torch.fx.Graph) -> None:
    """Say a change of number format in the one way that has a form."""
    for overload, place in ((torch.ops.aten.to.dtype, 1), (torch.ops.aten.to.device, 2), (torch.ops.aten.to.dtype_layout, 0)):
        for node in graph.find_nodes(op="call_function", target=overload):
            if node.meta["val"].is_meta:  # a side of which lengths alone are asked, which decomposing leaves out
                continue
            node.target = torch.ops.aten._to_copy.default  # noqa: SLF001 - its name
            node.args, node.kwargs = node.args[:1], {"dtype": node.args[place] if place else node.kwargs["dtype"]}


def _bias(graph: torch.fx.Graph) -> None:
    """Give convolutions in three dimensions a bias of zeros where they have none, of which torch's ONNX export makes two axes."""
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.conv3d.default):
        given: Any = (*node.args, *[None] * (3 - len(node.args)))
        image, weight, bias, *others = given
        if bias is None and "bias" not in node.kwargs:
            held = weight.meta["val"]
            bias = call(node, torch.ops.aten.full.default, [held.shape[0]], 0.0, dtype=held.dtype)
            node.args = image, weight, bias, *others


def _head(graph: torch.fx.Graph) -> None:
    """Give attention of (batch, length, channels) the axis of heads, one of them, without which ONNX has no form of it."""
    axis = torch.ops.aten.unsqueeze.default
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.scaled_dot_product_attention.default):
        made = node.meta["val"]
        if made.ndim != 3:
            continue
        wide = [call(node, axis, each, 1) for each in node.args[:3]]
        masks = [call(node, axis, each, -3) if each else each for each in node.args[3:4]]
        node.args, node.meta["val"] = (*wide, *masks, *node.args[4:]), made.unsqueeze(1)
        with graph.inserting_after(node):
            narrow = graph.call_function(torch.ops.aten.squeeze.dim, (node, 1))
        narrow.meta = {**node.meta, "val": made}
        node.replace_all_uses_with(narrow, lambda user, own=narrow: user is not own)


#: What makes one tensor of a list. Of these torch itself widens the narrower ones, and its ONNX export does not.
_LISTED = (
    torch.ops.aten.cat.default,
    torch.ops.aten.concat.default,
    torch.ops.aten.concatenate.default,
    torch.ops.aten.stack.default,
)


def _widen(graph: torch.fx.Graph) -> None:
    """Give tensors the number format in which ONNX takes them: places as int64, and in a list all the same one."""
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.index.Tensor):
        wide = {torch.int32: torch.int64}
        node.args = node.args[0], [each and _as(node, each, wide.get(each.meta["val"].dtype)) for each in node.args[1]]
    for node in [node for listed in _LISTED for node in graph.find_nodes(op="call_function", target=listed)]:
        node.args = [_as(node, each, node.meta["val"].dtype) for each in node.args[0]], *node.args[1:]


def _as(user: torch.fx.Node, given: torch.fx.Node, dtype: torch.dtype | None) -> torch.fx.Node:
    """What a node is given in another number format; itself where it has that, or none is asked for."""
    if dtype in {None, given.meta["val"].dtype}:
        return given
    return call(user, torch.ops.aten._to_copy.default, given, dtype=dtype)  # noqa: SLF001 - its name

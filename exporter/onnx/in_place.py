"""What a trace writes into memory becomes a tensor of its own: a graph has no memory to write to.

Pipelines count positions so: `ids[..., 1] += torch.arange(height)`. Torch takes writes out by tracing the network once more,
which is most of what an export takes.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch.fx import Graph, Node

from exporter.onnx.calls import call

aten: Any = torch.ops.aten
#: How far a slice reaches that has no end.
_END = 2**63 - 1


def take_out(graph: Graph) -> None:
    """Replace the writes of which that can be told; each other stays as it is, for torch to take out.

    That is a write into a tensor which the graph computes, or into parts of it by number (`ids[..., 1]`, `ids[:, 2:4]`), whose
    memory nothing reads by another name afterwards.
    """
    for node in graph.find_nodes(op="call_function", target=aten.copy_.default):
        if not node.users and _same(*node.args[:2]):
            graph.erase_node(node)
    graph.eliminate_dead_code()
    order: dict[Node, float] = {node: place for place, node in enumerate(graph.nodes)}
    for node in [each for each in graph.nodes if _aliased(each, write=True)]:
        if (path := _path(node.args[0])) and not _seen(path[0], node, order):
            before = {*graph.nodes}
            value = _written(node)
            for whole, part in reversed([*pairwise(path)]):
                value = value and _put_back(node, whole, part, value)
            order |= dict.fromkeys({*graph.nodes} - before, order[node] - 0.5)
            if value:
                path[0].replace_all_uses_with(value, lambda user, own=order[node], order=order: order[user] > own)
                node.replace_all_uses_with(value)
                graph.erase_node(node)
    graph.eliminate_dead_code()


def _aliased(node: Node, *, write: bool) -> bool:
    """Whether a node writes to the memory of its first argument; or else whether it is that memory by another name."""
    if not isinstance(node.target, torch._ops.OpOverload):  # noqa: SLF001 - of torch.ops
        return not write and node.target is operator.getitem
    schema = node.target._schema  # noqa: SLF001 - its only name
    first = schema.arguments[0].alias_info if schema.arguments else None
    return bool(first and first.is_write) if write else any(each.alias_info for each in schema.returns)


def _path(node: Any) -> list[Node]:  # noqa: ANN401 - what a call is given
    """The tensor whose memory a node names, and each part of the one before; empty where that is another's or is not known."""
    found = [node]
    while found[0].op == "call_function" and found[0].target in {aten.select.int, aten.slice.Tensor}:
        found.insert(0, found[0].args[0])
    return found if found[0].op == "call_function" and not _aliased(found[0], write=False) else []


def _same(place: Node, value: Node) -> bool:
    """Whether a value is what was written to the place before: Python stores what `x[1] += 1` gives once more."""
    written: Any = value
    while _aliased(written, write=True):
        written = written.args[0]
    (whole, *parts), (other, *others) = (_path(each) or [each] for each in (place, written))
    return whole is other and [(each.target, each.args[1:]) for each in parts] == [
        (each.target, each.args[1:]) for each in others
    ]


def _seen(whole: Node, write: Node, order: dict[Node, float]) -> bool:
    """Whether what is written is read by a name that was given to it before: a part, or what the write returns of a part."""
    if write.users and write.args[0] is not whole:
        return True
    named = [each for each in _names(whole) if order[each] < order[write]]
    return any(order[user] > order[write] for each in named for user in each.users)


def _names(node: Node) -> Iterator[Node]:
    for user in node.users:
        if _aliased(user, write=False) and user.args[0] is node:
            yield user
            yield from _names(user)


def _written(write: Node) -> Node | None:
    """What stands in the memory afterwards, computed without writing; None where that has another shape, or cannot be."""
    place: Any = write.args[0]
    target: Any = write.target
    name, overload = target._schema.name.removeprefix("aten::"), target._overloadname  # noqa: SLF001 - their only names
    if name == "copy_":
        value: Any = call(write, aten.clone.default, write.args[1])  # what it was copied of is another memory
    elif made := getattr(getattr(aten, name.removesuffix("_"), None), overload, None):
        value = call(write, made, *write.args, **write.kwargs)
    else:
        return None
    held, given = place.meta["val"], value.meta["val"]
    if held.shape != given.shape:
        return None
    return value if held.dtype == given.dtype else call(write, aten._to_copy.default, value, dtype=held.dtype)  # noqa: SLF001


def _put_back(write: Node, whole: Node, part: Node, value: Node) -> Node | None:
    """The whole with another value of a part of it; None where the part's place is no number."""
    given: Any = part.args
    axis, single = (given[1] if len(given) > 1 else 0), part.target is aten.select.int
    length = whole.meta["val"].shape[axis]
    start = (given[2] if len(given) > 2 else 0) or 0
    stop: Any = start + 1 if single else given[3] if len(given) > 3 else None
    step = given[4] if len(given) > 4 else 1
    value = call(write, aten.unsqueeze.default, value, axis) if single else value
    if (start, step) == (0, 1) and (stop is None or (isinstance(stop, int) and stop == _END)):
        return value
    if step != 1 or not all(isinstance(each, int) for each in (length, start, stop)):
        return None
    start += length if start < 0 else 0
    stop = start + 1 if single else min(length, stop + (length if stop < 0 else 0))
    sides = [(0, start), (stop, length)]
    before, after = ([call(write, aten.slice.Tensor, whole, axis, *side)] if side[0] < side[1] else [] for side in sides)
    pieces = [*before, value, *after]
    return call(write, aten.cat.default, pieces, axis) if len(pieces) > 1 else value

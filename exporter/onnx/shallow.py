"""The outermost layers of an exported denoiser as a graph of their own, over the same weights in the same file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from engines.errors import UnsupportedError
from exporter.part import DEEP

#: What stands between a value of the network and the port that shows it.
_SHOWING = {"Reshape", "Cast", "Identity", "Transpose", "Unsqueeze"}


def shallow(file: Path, inputs: tuple[str, ...]) -> ir.Model:
    """Cut a graph where it shows its deep feature: what makes that is dropped, and the port becomes an input.

    Args:
        file: the whole denoiser's graph, whose outputs are its answer and the deep feature. The result names its weights' file.
        inputs: of the result, by name.

    Raises:
        UnsupportedError: the graph does not hold the deep feature as a value that its own layers go on with.

    """
    model = ir.load(file)
    graph = model.graph
    answer, port = graph.outputs
    values = _shown(port)
    if not values:
        raise UnsupportedError(
            f"{file.name}: no layer of the graph goes on with the deep feature as it is shown, so that it cannot be cut there. "
            "Build without sampler.cache, or leave out the graph passes of this part's backends."
        )
    deep = ir.Value(name=DEEP, type=port.type, shape=port.shape)
    port.name = f"{DEEP}_of_the_whole"
    del graph.outputs[1]
    nodes = _entering_residuals(deep, values) if all(_residual(value) for value in values) else _entering(deep, values[0])
    graph.inputs.append(deep)
    first = graph[0]
    graph.insert_before(first, nodes)
    RemoveUnusedNodesPass()(model)
    for each in [each for each in graph.inputs if each.name not in inputs]:
        _measured_by(each, deep)
        graph.inputs.remove(each)
    graph.inputs[:] = sorted(graph.inputs, key=lambda each: inputs.index(str(each.name)))
    if graph.outputs[0] is not answer or [each.name for each in graph.inputs] != list(inputs):
        raise ValueError(f"{file.name}: its outermost layers take {[each.name for each in graph.inputs]}, not {list(inputs)}")
    return model


def _measured_by(text: ir.Value, deep: ir.Value) -> None:
    """Where the outermost layers ask an input that they do not read for its first two lengths, ask the deep feature."""
    for node, index in tuple(text.uses()):
        bounds = [node.attributes.get_int(bound, default) for bound, default in (("start", 0), ("end", 99))]
        if node.op_type != "Shape" or not 0 <= bounds[0] < bounds[1] <= 2:
            raise ValueError(f"the outermost layers read {text.name} ({node.op_type} {node.name}), and their contract has it not")
        node.replace_input_with(index, deep)


def _shown(port: ir.Value) -> list[ir.Value]:
    """The network's own values that a port shows, one of each call: the nearest behind it that something else goes on with."""
    value: ir.Value | None = port
    while value is not None and _read(value) < 2:
        node = value.producer()
        if node is not None and node.op_type == "Concat":
            found = [_shown(each) for each in node.inputs if each is not None]
            return [one for each in found for one in each] if all(len(each) == 1 for each in found) else []
        if node is None or node.op_type not in _SHOWING:
            return []
        value = node.inputs[0]
    return [] if value is None else [value]


def _read(value: ir.Value) -> int:
    """How often a value is read, beside for its shape."""
    return sum(node.op_type != "Shape" for node, _ in value.uses()) + value.is_graph_output()


def _residual(value: ir.Value) -> ir.Value | None:
    """What a residual was taken from and is added to, which the outermost layers compute; None of what is no residual."""
    node = value.producer()
    if node is None or node.op_type != "Sub":
        return None
    kept = node.inputs[1]
    return kept if any(use.op_type == "Add" and kept in use.inputs for use, _ in value.uses()) else None


def _entering(deep: ir.Value, value: ir.Value) -> list[ir.Node]:
    """(batch, branches, C, H, W), float32 → the value's shape, (batch * branches, C, H, W), and type, in its place."""
    rest = _node("Shape", "rest", [deep], start=2)
    items = _numbers("items", -1)
    whole = _node("Concat", "shape", [items.outputs[0], rest.outputs[0]], axis=0)
    flat = _node("Reshape", "flat", [deep, whole.outputs[0]])
    return [items, rest, whole, flat, *_instead("", flat, value)]


def _entering_residuals(deep: ir.Value, values: Sequence[ir.Value]) -> list[ir.Node]:
    """(batch, branches, …), float32 → each value's shape, (branches of it * batch, tokens, width), and type, in its place.

    What hangs on what the residual is added to stands behind that; the rest is returned.
    """
    branches = deep.shape[1] if deep.shape else None
    if not isinstance(branches, int) or branches % len(values):
        raise ValueError(f"the deep feature has {branches} branches, and {len(values)} calls leave it")
    each, nodes, pieces = branches // len(values), list[ir.Node](), [deep]
    if len(values) > 1:
        lengths = _numbers("lengths", *[each] * len(values))
        split = _node("Split", "calls", [deep, lengths.outputs[0]], len(values), axis=1)
        nodes, pieces = [lengths, split], list(split.outputs)
    for number, (piece, value) in enumerate(zip(pieces, values, strict=True)):
        kept, before = _residual(value), value.producer()
        order = [1, 0, *range(2, len(deep.shape or ()))]  # the pictures of a branch follow each other
        rows = _node("Transpose", f"rows_{number}", [piece], perm=order)
        shape = _node("Shape", f"shape_{number}", [kept])
        flat = _node("Reshape", f"flat_{number}", [rows.outputs[0], shape.outputs[0]])
        own = [rows, shape, flat, *_instead(f"_{number}", flat, value)]
        if before is not None and before.graph is not None:
            before.graph.insert_before(before, own)
    return nodes


def _instead(name: str, made: ir.Node, value: ir.Value) -> list[ir.Node]:
    """Put what a node makes in the place of a value, by a further node where its type is another."""
    cast = [] if value.dtype in {None, ir.DataType.FLOAT} else [_node("Cast", f"cast{name}", made.outputs, to=value.dtype)]
    (found,) = [made, *cast][-1].outputs
    found.type, found.shape = value.type, value.shape
    value.replace_all_uses_with(found)
    return cast


def _numbers(name: str, *numbers: int) -> ir.Node:
    return _node("Constant", name, [], value=ir.tensor(np.array(numbers, np.int64), name=f"deep_{name}"))


def _node(operator: str, name: str, inputs: Sequence[ir.Value | None], count: int = 1, **attributes: Any) -> ir.Node:  # noqa: ANN401
    node = ir.node(operator, inputs, attributes=attributes, num_outputs=count, name=f"deep_{name}")
    for number, output in enumerate(node.outputs):
        output.name = f"deep_{name}_value_{number}"
    return node

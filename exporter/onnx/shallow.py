"""The outermost layers of an exported denoiser as a graph of their own, over the same weights in the same file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from engines.errors import UnsupportedError
from exporter.part import DEEP

#: What stands between a value of the network and the port that shows it.
_SHOWING = {"Reshape", "Cast", "Identity"}


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
    value = _shown(port)
    if value is None:
        raise UnsupportedError(
            f"{file.name}: no layer of the graph goes on with the deep feature as it is shown, so that it cannot be cut there. "
            "Build without sampler.cache, or leave out the graph passes of this part's backends."
        )
    deep = ir.Value(name=DEEP, type=port.type, shape=port.shape)
    port.name = f"{DEEP}_of_the_whole"
    made, nodes = _entering(deep, value)
    del graph.outputs[1]
    value.replace_all_uses_with(made)
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


def _shown(port: ir.Value) -> ir.Value | None:
    """The network's own value that a port shows: the nearest behind it that something else goes on with."""
    value: ir.Value | None = port
    while value is not None and len(value.uses()) + value.is_graph_output() < 2:
        node = value.producer()
        if node is None or node.op_type not in _SHOWING:
            return None
        value = node.inputs[0]
    return value


def _entering(deep: ir.Value, value: ir.Value) -> tuple[ir.Value, list[ir.Node]]:
    """(batch, branches, C, H, W), float32 → the value's shape, (batch * branches, C, H, W), and type."""
    rest = ir.node("Shape", [deep], attributes={"start": 2}, name="deep_rest")
    items = ir.tensor(np.array([-1], np.int64), name="deep_items")
    constant = ir.node("Constant", [], attributes={"value": items}, name="deep_items")
    whole = ir.node("Concat", [constant.outputs[0], rest.outputs[0]], attributes={"axis": 0}, name="deep_shape")
    flat = ir.node("Reshape", [deep, whole.outputs[0]], name="deep_flat")
    nodes = [constant, rest, whole, flat]
    if value.dtype not in {None, ir.DataType.FLOAT}:
        nodes.append(ir.node("Cast", [flat.outputs[0]], attributes={"to": value.dtype}, name="deep_cast"))
    for node in nodes:
        node.outputs[0].name = f"{node.name}_value"
    made = nodes[-1].outputs[0]
    made.type, made.shape = value.type, value.shape
    return made, nodes

"""A part of a graph as a graph of its own, for inputs that are at hand: what an engine is built of to see inside."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from engines.signature import Port, Signature

#: What may cross the border of an engine, and what everything else is converted to and from there.
_PORTS = {ir.DataType.FLOAT: np.float32, ir.DataType.INT64: np.int64}
_REAL = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}
#: Bytes of weights up to which they lie in the graph's own file.
_INSIDE = 2**27


@dataclass(frozen=True)
class Subgraph:
    """A graph for inputs of one size.

    Attributes:
        model: the graph; its ports are float32 or int64.
        feeds: port → what it is fed with.
        ports: name of a value of the graph that was cut → the output that it is.

    """

    model: ir.Model
    feeds: Mapping[str, np.ndarray]
    ports: Mapping[str, str]

    def save(self, path: Path) -> Path:
        """Write the graph, with large weights in a file beside it."""
        size = sum(value.const_value.nbytes for value in self.model.graph.initializers.values() if value.const_value is not None)
        if size > _INSIDE:
            ir.save(self.model, path, external_data=f"{path.name}.data")
        else:
            ir.save(ir.external_data.load_to_model(self.model), path)
        return path

    def signature(self, shapes: Mapping[str, Sequence[int]] | None = None) -> Signature:
        """The contract of an engine for these inputs alone; `shapes` are those of its outputs, which its graph then says too.

        Without them it says how many axes there are where the graph knows, which is enough for an engine that runs the file.
        """
        outputs = []
        for value in self.model.graph.outputs:
            shape = tuple((shapes or {}).get(str(value.name), ()))
            if shapes is not None:
                value.shape = ir.Shape(shape)
            outputs.append(_port(str(value.name), value.dtype, [max(1, length) for length in shape]))
        inputs = [_port(name, value.dtype, value.shape) for name, value in zip(self.feeds, self.model.graph.inputs, strict=True)]
        return Signature(inputs=tuple(inputs), outputs=tuple(outputs), dims={})


def cut(model: ir.Model, starts: Mapping[str, np.ndarray], ends: Sequence[str]) -> Subgraph:
    """Take out what lies between `starts`, values that are fed with arrays, and `ends`, which become outputs.

    Sizes and indices that are fed inside the graph become constants, because engines do not take them at run time.
    """
    own = {str(value.name) for value in model.graph.inputs}
    graph = ir.convenience.extract(model.graph, list(starts), list(ends))
    taken: set[str] = set()
    feeds: dict[str, np.ndarray] = {}
    for value in list(graph.inputs):
        name, array = str(value.name), starts[str(value.name)]
        value.shape = ir.Shape(array.shape)
        if not value.uses():
            graph.inputs.remove(value)
        elif value.dtype == ir.DataType.FLOAT or name in own:
            value.name = port = _named(name, taken)
            feeds[port] = array
        elif value.dtype in _REAL:
            feeds[_convert_input(graph, value, taken)] = array
        else:
            _hold(graph, value, array)
    ports = {end: _as_output(graph, index, end, taken) for index, end in enumerate(ends)}
    functions = list(model.functions.values())
    return Subgraph(ir.Model(graph, ir_version=model.ir_version, functions=functions), feeds, ports)


def _hold(graph: ir.Graph, value: ir.Value, array: np.ndarray) -> None:
    """Make an input a constant."""
    kind = value.dtype or ir.DataType.INT64
    graph.inputs.remove(value)
    value.const_value = ir.tensor(array.astype(kind.numpy()), name=value.name)
    graph.register_initializer(value)


def _convert_input(graph: ir.Graph, value: ir.Value, taken: set[str]) -> str:
    """Feed a half-precision value in float32, which holds all of them."""
    port = _named(str(value.name), taken)
    given = ir.Value(name=port, type=ir.TensorType(ir.DataType.FLOAT), shape=value.shape)
    cast = ir.node("Cast", [given], attributes={"to": int(value.dtype or 0)})
    cast.outputs[0].name = _named(f"{port}_inside", taken)
    cast.outputs[0].type, cast.outputs[0].shape = value.type, value.shape
    graph.inputs[list(graph.inputs).index(value)] = given
    value.replace_all_uses_with(cast.outputs[0])
    graph.insert_before(graph.node(0), cast)
    return port


def _as_output(graph: ir.Graph, index: int, name: str, taken: set[str]) -> str:
    """Let a value leave the graph as float32 or int64, under a name that a port may have."""
    value = graph.outputs[index]
    value.shape = None
    port = _named(name, taken)
    if value.dtype in _PORTS and not value.is_graph_input():
        value.name = port
        return port
    real = value.dtype in _REAL or value.dtype == ir.DataType.FLOAT
    kind = ir.DataType.FLOAT if real else ir.DataType.INT64
    cast = ir.node("Cast", [value], attributes={"to": int(kind)})
    cast.outputs[0].name, cast.outputs[0].type = port, ir.TensorType(kind)
    if str(value.name) == port:
        value.name = _named(f"{port}_inside", taken)
    graph.append(cast)
    graph.outputs[index] = cast.outputs[0]
    return port


def _named(name: str, taken: set[str]) -> str:
    """A port's name like that of a value, and not yet taken."""
    plain = re.sub(r"[^a-z0-9_]", "_", name.lower())[:50]
    plain = plain if re.match(r"[a-z]", plain) else f"v{plain}"
    port, number = plain, 1
    while port in taken:
        port, number = f"{plain}_{number}", number + 1
    taken.add(port)
    return port


def _port(name: str, kind: ir.DataType | None, shape: Sequence[int] | ir.Shape | None) -> Port:
    return Port(
        name=name,
        dtype="int64" if kind == ir.DataType.INT64 else "float32",
        shape=tuple(int(str(length)) for length in shape or ()),
    )

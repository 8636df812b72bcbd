"""LoRAs as inputs of a graph: beside every layer's product with its weight one with A, and one with B, which come from outside.

The layer's own nodes stay as they are, so whatever quantizes them or fuses them does so without the LoRA, whose path computes in
the layer's own float type. Each item's LoRAs are scaled between A and B, rank by rank, and an unused rank is zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
from torch import nn

from engines.errors import RecipeError, UnsupportedError
from engines.lora import spelling
from engines.lora.layers import CONV_SCALE, RANK, SCALE, LoraLayer, LoraLimits, extended
from engines.plugins import did_you_mean
from exporter.onnx.layers import Layer, layers

if TYPE_CHECKING:
    from engines.signature import Signature
    from exporter.graph import When

_FLOAT = ir.DataType.FLOAT


@dataclass
class LoraGraphPass:
    """A graph pass that gives layers their inputs; it stands where weights have their modules' names, and convolutions are whole.

    Args:
        limits: how many LoRAs, and how large.
        component: the network's name in the pipeline.
        network: diffusers' or transformers' model.
        config: of the pipeline's UNet, whose blocks the original layout numbers.
        repeats: rows of the network for one item of the batch: branches of guidance, chunks of a prompt; or name of the input
            whose second axis counts them, where their number is open.
        patterns: layers that the recipe names; none is every layer inside a block.

    Attributes:
        found: every layer that a LoRA could name, once the pass has run.

    """

    limits: LoraLimits
    component: str
    network: nn.Module
    config: Mapping[str, Any]
    repeats: int | str
    patterns: Sequence[str] = ()
    found: list[LoraLayer] = field(default_factory=list)
    when: When = "always"
    after: tuple[str, ...] = ("fold",)
    before: tuple[str, ...] = ("deduplicate", "upsample", "transpose")

    def __call__(self, model: ir.Model) -> ir.Model:
        """Add inputs and nodes.

        Raises:
            RecipeError: a pattern names no layer.
            UnsupportedError: no layer can take a LoRA.

        """
        modules: dict[str, Any] = {name: each for name, each in self.network.named_modules() if hasattr(each, "weight")}
        own = {name: each for name, each in modules.items() if each.weight.ndim > 1}
        spelled = spelling.bares(self.component, own, self.config)
        nodes: dict[str, list[Layer]] = {}
        for layer in layers(model):
            if (name := layer.name.rstrip("+")) in own:
                nodes.setdefault(name, []).append(layer)
        self._refuse_patterns(list(nodes))
        wanted = {name for name in nodes if self._wanted(name, nodes[name][0])}
        if not wanted:
            raise UnsupportedError(
                f"{self.component} has no layer that could take a LoRA.\n  Leave components.{self.component}.lora out."
            )
        taken = {name: index for index, name in enumerate(sorted(wanted))}
        self.found[:] = [
            LoraLayer(
                name=name,
                spelled=spelled[name],
                shape=tuple(each.weight.shape),
                index=taken.get(name),
                used=name in nodes or not isinstance(each, nn.Linear | nn.Conv2d),
            )
            for name, each in own.items()
            if each.weight.ndim in {2, 4}
        ]
        writer = _Writer(model, self.limits, self.repeats)
        for layer in (layer for layer in self.found if layer.index is not None):
            for node in nodes[layer.name]:
                writer.add(layer, node)
        return model

    def signature(self, base: Signature) -> Signature:
        """The network's contract with the inputs that were added."""
        return extended(base, self.found, self.limits)

    def facts(self) -> dict[str, Any]:
        """What there is to keep, as JSON has it."""
        return {"limits": self.limits.model_dump(mode="json"), "layers": [layer.model_dump(mode="json") for layer in self.found]}

    def _wanted(self, name: str, layer: Layer) -> bool:
        kernel = layer.kind == "conv" and set(layer.shape[2:]) != {1}
        strided = layer.kind == "conv" and not kernel and not _plain(layer.node)
        if layer.grouped or layer.node.outputs[0].is_graph_output() or strided or (kernel and not self.limits.conv_rank):
            return False
        if self.patterns:
            return any(fnmatchcase(name, pattern) for pattern in self.patterns)
        return any(part.isdecimal() for part in name.split("."))

    def _refuse_patterns(self, names: Sequence[str]) -> None:
        """Raise RecipeError for a pattern that means none of a network's layers."""
        for pattern in self.patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                where = f"components.{self.component}.lora.layers"
                raise RecipeError(f"{where}: {pattern!r} is no layer of this network{did_you_mean(pattern, list(names)[:400])}")


def _plain(node: ir.Node) -> bool:
    """Whether a convolution of one pixel reads every pixel."""
    strides, pads = (node.attributes.get_ints(name, None) for name in ("strides", "pads"))
    return set(strides or [1]) == {1} and set(pads or [0]) == {0}


class _Writer:
    """Writes the low-rank path of layers into a graph."""

    def __init__(self, model: ir.Model, limits: LoraLimits, repeats: int | str) -> None:
        self._graph, self._limits, self._repeats = model.graph, limits, repeats
        self._named: set[str] = set()
        self._ports: dict[str, ir.Value] = {}
        self._nodes: list[ir.Node] = []
        self._scales: dict[str, ir.Value] = {}

    def add(self, layer: LoraLayer, at: Layer) -> None:
        """Give one node of a layer its path."""
        self._nodes, name = [], f"{layer.name}/lora"
        made = _biased(at.node)
        source = self._source(at.source, name)
        a, b = (self._cast(self._port(port.name, port.shape), at.dtype, port.name) for port in layer.ports(self._limits))
        rank = 4 if at.kind == "conv" else 2 if at.node.op_type == "Gemm" else _rank(at.source)
        if layer.form == "rows":
            low = self._node("MatMul", [source, a], f"{name}/down")
            high = self._node("MatMul", [self._scaled(low, SCALE, at.dtype, range(1, rank - 1), name), b], f"{name}/up")
        elif layer.form == "pixels":
            flat = self._node("Reshape", [source, self._ints("lora.flat", [0, 0, -1])], f"{name}/flat")
            low = self._node("MatMul", [a, flat], f"{name}/down")
            wide = self._node("MatMul", [b, self._scaled(low, SCALE, at.dtype, [2], name)], f"{name}/up")
            high = self._node("Reshape", [wide, self._node("Shape", [made], f"{name}/shape")], f"{name}/image")
        else:
            low = self._node("Conv", [source, a], f"{name}/down", **dict(at.node.attributes))
            high = self._node("Conv", [self._scaled(low, CONV_SCALE, at.dtype, [2, 3], name), b], f"{name}/up")
        users = list(made.uses())
        total = self._node("Add", [made, high], f"{name}/add")
        for user, place in users:
            if user not in self._nodes:
                user.replace_input_with(place, total)
        anchor = made.producer()
        if anchor is None:
            raise RuntimeError(f"nothing makes the output of {layer.name}")
        total.type, total.shape = made.type, made.shape
        self._graph.insert_after(anchor, self._nodes)

    def _source(self, value: ir.Value, name: str) -> ir.Value:
        """What the layer reads. A doubling gets a copy of its own, so that the layer's can be joined with its convolution."""
        maker = value.producer()
        if maker is None or maker.op_type != "Resize":
            return value
        return self._node("Resize", list(maker.inputs), f"{name}/resize", **dict(maker.attributes))

    def _scaled(self, low: ir.Value, port: str, dtype: ir.DataType, axes: Sequence[int], name: str) -> ir.Value:
        return self._node("Mul", [low, self._scale(port, dtype, list(axes))], f"{name}/scale")

    def _scale(self, port: str, dtype: ir.DataType, axes: list[int]) -> ir.Value:
        """Scales for every row of the network, with axes of length 1; made once, in front of everything."""
        label = ".".join([port, dtype.name.lower(), *map(str, axes)])
        if label in self._scales:
            return self._scales[label]
        before, self._nodes = self._nodes, []
        length = RANK if port == SCALE else self._limits.slots * self._limits.conv_rank
        value = self._port(port, ("batch", length))
        if self._repeats != 1:
            value = self._node("Unsqueeze", [value, self._ints("lora.one", [1])], f"{label}/row")
            value = self._node("Expand", [value, self._rows(label)], f"{label}/rows")
            value = self._node("Flatten", [value], f"{label}/all", axis=2)
        value = self._cast(value, dtype, label)
        if axes:
            value = self._node("Unsqueeze", [value, self._ints(f"lora.axes.{axes}", axes)], f"{label}/wide")
        first_node = next(iter(self._graph))
        self._graph.insert_before(first_node, self._nodes)
        self._nodes = before
        self._scales[label] = value
        return value

    def _rows(self, label: str) -> ir.Value:
        """How an item's scales are repeated: for as many branches as a call has, where their number is open."""
        if isinstance(self._repeats, int):
            return self._ints("lora.repeats", [1, self._repeats, 1])
        port = next(value for value in self._graph.inputs if value.name == self._repeats)
        count, one = self._node("Shape", [port], f"{label}/branches", start=1, end=2), self._ints("lora.one", [1])
        return self._node("Concat", [one, count, one], f"{label}/repeats", axis=0)

    def _port(self, name: str, shape: Sequence[int | str]) -> ir.Value:
        if name not in self._ports:
            value = ir.Value(name=name, type=ir.TensorType(_FLOAT), shape=ir.Shape(shape))
            self._graph.inputs.append(value)
            self._ports[name] = value
        return self._ports[name]

    def _cast(self, value: ir.Value, dtype: ir.DataType, name: str) -> ir.Value:
        return value if dtype == _FLOAT else self._node("Cast", [value], f"{name}/{dtype.name.lower()}", to=dtype.value)

    def _ints(self, name: str, numbers: Sequence[int]) -> ir.Value:
        if name not in self._graph.initializers:
            tensor = ir.tensor(list(numbers), dtype=ir.DataType.INT64, name=name)
            kind = ir.TensorType(ir.DataType.INT64)
            self._graph.register_initializer(ir.Value(name=name, const_value=tensor, shape=ir.Shape([len(numbers)]), type=kind))
        return self._graph.initializers[name]

    def _node(self, operator: str, inputs: Sequence[ir.Value | None], name: str, **attributes: Any) -> ir.Value:  # noqa: ANN401
        # Of a layer that the graph has twice the second has names of its own.
        node = ir.node(
            operator, inputs, attributes=attributes, name=f"{name}+{len(self._graph)}" if name in self._named else name
        )
        self._named.add(name)
        node.outputs[0].name = f"{node.name}:0"
        node.outputs[0].type = None
        self._nodes.append(node)
        return node.outputs[0]


def _biased(node: ir.Node) -> ir.Value:
    """What a product makes, with the bias that alone reads it."""
    made = node.outputs[0]
    users = [user for user, _ in made.uses()]
    if node.op_type != "MatMul" or len(users) != 1 or users[0].op_type != "Add" or made.is_graph_output():
        return made
    other = next((value for value in users[0].inputs if value is not made), None)
    biased = other is not None and other.is_initializer() and not users[0].outputs[0].is_graph_output()
    return users[0].outputs[0] if biased else made


def _rank(value: ir.Value) -> int:
    if value.shape is None:
        raise UnsupportedError(
            f"{value.name}: nothing says how many axes it has, so no LoRA can be added.\n  Leave lora out of the component."
        )
    return len(value.shape)

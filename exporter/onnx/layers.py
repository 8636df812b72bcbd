"""Which nodes of a graph hold a network's weights: convolutions, and products with a constant matrix."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal, cast

from engines.errors import RecipeError
from engines.plugins import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import onnx_ir as ir

#: Types of weights that can be quantized, by the graph's names.
_FLOATS = ("FLOAT", "FLOAT16", "BFLOAT16")


@dataclass(frozen=True)
class Layer:
    """One node with a constant weight.

    Attributes:
        name: of the module that it came from, where the graph still knows: `down_blocks.0.resnets.0.conv1`.
        node: the node; its first input is the activation, its second the weight.
        kind: `conv`, or `product` for MatMul and Gemm.
        out: the weight's axis of output channels.
        into: the weight's axis of input channels, to which the activation's `channels` belong.
        channels: the activation's axis of channels.
        vector: whether its input is one row per image, as in a time embedding.
        dtype: of the weight.
        shape: of the weight.

    """

    name: str
    node: ir.Node
    kind: Literal["conv", "product"]
    out: int
    into: int
    channels: int
    vector: bool
    dtype: ir.DataType
    shape: tuple[int, ...]

    @property
    def weight(self) -> ir.Value:
        """The constant."""
        return cast("ir.Value", self.node.inputs[1])  # it was found by it

    @property
    def source(self) -> ir.Value:
        """The activation."""
        return cast("ir.Value", self.node.inputs[0])  # these operators have one

    @property
    def grouped(self) -> bool:
        """Whether channels are convolved in groups."""
        return self.kind == "conv" and self.node.attributes.get_int("group", 1) != 1

    @property
    def column(self) -> tuple[int, ...]:
        """Shape in which one number per channel meets a convolution's activation."""
        return (-1, *[1] * (len(self.shape) - 2))


def layers(model: ir.Model) -> tuple[Layer, ...]:
    """Every layer of a graph, in its order; names are unique."""
    found: list[Layer] = []
    names: set[str] = set()
    for node in model.graph:
        if node.op_type not in {"Conv", "MatMul", "Gemm"} or node.domain:
            continue
        weight = node.inputs[1]
        if weight is None or not weight.is_initializer() or weight.dtype is None or weight.dtype.name not in _FLOATS:
            continue
        shape = weight.shape.numpy() if weight.shape else ()
        rank = len(shape)
        if (node.op_type == "Conv" and rank < 3) or (node.op_type != "Conv" and rank != 2):
            continue
        if node.op_type == "Gemm" and (node.attributes.get_int("transA", 0) or node.attributes.get_float("alpha", 1.0) != 1.0):
            continue
        out = 0 if node.op_type == "Conv" or node.attributes.get_int("transB", 0) else 1
        name = _name(node, str(weight.name))
        while name in names:
            name += "+"
        names.add(name)
        kind: Literal["conv", "product"] = "conv" if node.op_type == "Conv" else "product"
        channels, vector = 1 if kind == "conv" else -1, node.op_type == "Gemm"
        found.append(Layer(name, node, kind, out, 1 - out, channels, vector, weight.dtype, shape))
    return tuple(found)


def delicate(found: Sequence[Layer]) -> tuple[str, ...]:
    """Names of what is left alone unless asked: first and last convolution, products of one row per image (time embedding)."""
    convolutions = [layer.name for layer in found if layer.kind == "conv"]
    ends = {*convolutions[:1], *convolutions[-1:]}
    return tuple(layer.name for layer in found if layer.name in ends or layer.vector)


def matching(patterns: Iterable[str], found: Sequence[Layer], where: str) -> tuple[str, ...]:
    """Names that a recipe's patterns (`down_blocks.*.conv1`) mean, in the graph's order.

    Raises:
        RecipeError: a pattern means none.

    """
    names, wanted = [layer.name for layer in found], set[str]()
    for pattern in patterns:
        hits = [name for name in names if fnmatchcase(name, pattern)]
        if not hits:
            raise RecipeError(f"{where}: {pattern!r} is no layer of this graph{did_you_mean(pattern, names[:400])}")
        wanted.update(hits)
    return tuple(name for name in names if name in wanted)


def _name(node: ir.Node, weight: str) -> str:
    """The module's name without the wrapper's own and without `weight`; the node's where folding made the weight up."""
    plain = weight.removesuffix(".T")
    if not plain.endswith(".weight"):
        return str(node.name)
    return plain.removesuffix(".weight").partition(".")[2] or plain

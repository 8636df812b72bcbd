"""Explicit, symmetric Q/DQ in a graph: the one kind of result that every format gives.

Weights are stored in their few bits behind a DequantizeLinear; an activation passes QuantizeLinear and DequantizeLinear. What a
backend makes of that is its own matter; what the numbers are is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from engines.errors import UnsupportedError
from exporter.quantization.calibration import LARGEST
from exporter.quantization.numerics import block_of, in_blocks, per_channel

if TYPE_CHECKING:
    from exporter.onnx.layers import Layer
    from exporter.quantization.calibration import Spec

#: The operator set that has 4-bit integers and scales per block. Nothing in these graphs changed its meaning from 20 to 21.
BLOCKS_SINCE = 21
_ZERO: Mapping[str, Any] = {"int8": np.int8, "fp8": ml_dtypes.float8_e4m3fn}
NodesAndOutput = tuple[list[ir.Node], ir.Value]


class NodeWriter:
    """Makes the nodes; who puts them where is the caller's matter. Constants go into the graph at once, each once.

    Args:
        model: to which they belong.
        block: of 4-bit weights, at most.
        mark: before every name, where several writers quantize one layer.

    """

    def __init__(self, model: ir.Model, block: int, mark: str = "") -> None:
        self.graph, self._block, self._mark = model.graph, block, mark

    def weight(self, layer: Layer, spec: Spec) -> NodesAndOutput:
        """The weight as the engine will see it: quantized, after its channels were scaled.

        Raises:
            UnsupportedError: it has no scale, or no block fits.

        """
        value = layer.weight
        array = _array(value)
        if spec.factors:
            array = array * _along(np.array(spec.factors, np.float32), layer.into, array.ndim)
        try:
            if spec.weights == "int4":
                return self._blocks(layer, array)
            numbers, scale = per_channel(array, layer.out, spec.weights)
        except ValueError as error:
            raise UnsupportedError(
                f"{layer.name} cannot be quantized: {error}.\n  Name it in keep, and in untouched where rest is asked for."
            ) from error
        scale = _finite(scale, layer.dtype, layer.name)
        inputs = [
            self.constant(f"{value.name}.{spec.weights}", numbers),
            self.constant(f"{value.name}.scale", scale),
            self.constant(f"{value.name}.zero", np.zeros(scale.shape, numbers.dtype)),
        ]
        node = self._named("DequantizeLinear", inputs, f"{layer.name}/weight", axis=layer.out)
        return [node], node.outputs[0]

    def activation(self, value: ir.Value, clip: float, kind: str, dtype: ir.DataType, name: str) -> NodesAndOutput:
        """A value with few numbers: clipped to ±clip, rounded."""
        scale = self.constant(f"{name}.scale", _finite(np.array(clip / LARGEST[kind], np.float32), dtype, name))
        zero = self.constant(f"zero.{kind}", np.zeros((), _ZERO[kind]))
        down = self._named("QuantizeLinear", [value, scale, zero], f"{name}/q")
        up = self._named("DequantizeLinear", [down.outputs[0], scale, zero], f"{name}/dq")
        return [down, up], up.outputs[0]

    def divided(self, layer: Layer, factors: Sequence[float]) -> NodesAndOutput:
        """The layer's input with its channels divided."""
        array = (1.0 / np.array(factors, np.float32)).astype(_numpy(layer.dtype))
        if layer.kind == "conv":
            array = array.reshape(layer.column)
        node = self._named("Mul", [layer.source, self.constant(f"{layer.name}.factors", array)], f"{layer.name}/divide")
        return [node], node.outputs[0]

    def constant(self, name: str, array: np.ndarray) -> ir.Value:
        """An initializer of the graph, made once."""
        name = f"{self._mark}{name}"
        if name not in self.graph.initializers:
            tensor = ir.tensor(array, name=name)
            made = ir.Value(name=name, const_value=tensor, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype))
            self.graph.register_initializer(made)
        return self.graph.initializers[name]

    def _named(self, operator: str, inputs: Sequence[ir.Value], name: str, **attributes: Any) -> ir.Node:  # noqa: ANN401 - ONNX's
        return named(operator, inputs, f"{self._mark}{name}", **attributes)

    def _blocks(self, layer: Layer, array: np.ndarray) -> NodesAndOutput:
        """Four bits: of a product in blocks along its input channels, of a convolution along its flattened weight."""
        name, flat = layer.weight.name, layer.kind == "conv"
        rows = array.reshape(array.shape[0], -1) if flat else np.moveaxis(array, layer.into, 1)
        block = block_of(rows.shape[1], self._block)
        if flat and block < self._block and (whole := block_of(array.size, self._block)) > block:
            block, rows = whole, array.reshape(-1, whole)  # blocks then reach over the end of an output channel
        if not block:
            raise ValueError(f"its {rows.shape[1]} input channels are no multiple of 16")
        numbers, scale = in_blocks(rows, block)
        scale = _finite(scale, layer.dtype, layer.name)
        axis = 1 if flat else layer.into
        numbers, scale = (np.moveaxis(each, 1, axis) for each in (numbers, scale))
        inputs = [
            self.constant(f"{name}.int4", np.ascontiguousarray(numbers).astype(ml_dtypes.int4)),
            self.constant(f"{name}.scale", np.ascontiguousarray(scale)),
        ]
        made = [self._named("DequantizeLinear", inputs, f"{layer.name}/weight", axis=axis, block_size=block)]
        if flat:
            shape = self.constant(f"{name}.shape", np.array(array.shape, np.int64))
            made.append(self._named("Reshape", [made[0].outputs[0], shape], f"{layer.name}/shape"))
        self.graph.opset_imports[""] = max(BLOCKS_SINCE, self.graph.opset_imports[""])
        return made, made[-1].outputs[0]


def named(operator: str, inputs: Sequence[ir.Value], name: str, **attributes: Any) -> ir.Node:  # noqa: ANN401 - ONNX's
    """A node whose output is called after it: names made up anew could be those of a branch's values."""
    node = ir.node(operator, inputs, attributes=attributes, name=name)
    node.outputs[0].name = f"{name}:0"
    return node


def write(model: ir.Model, found: Sequence[Layer], specs: Mapping[str, Spec], block: int) -> ir.Model:
    """Quantize layers in place.

    Layers that read one value with one range share its Q/DQ, and one division of its channels, which goes into the scale and bias
    of a LayerNormalization where nobody else reads that.

    Raises:
        UnsupportedError: a layer has no scale; names it.

    """
    writer, shared = NodeWriter(model, block), dict[tuple[Any, ...], ir.Value]()
    folded = _fold(writer, found, specs)
    for layer in found:
        spec = specs.get(layer.name)
        if spec is None:
            continue
        nodes, weight = writer.weight(layer, spec)
        model.graph.insert_before(layer.node, nodes)
        old, source = layer.weight, layer.source
        if spec.factors and layer.name not in folded:
            key = (source, spec.factors)
            if key not in shared:
                nodes, shared[key] = writer.divided(layer, spec.factors)
                model.graph.insert_before(layer.node, nodes)
            source = shared[key]
        if spec.activations and spec.range:
            key = (source, spec.range, spec.activations)
            if key not in shared:
                nodes, shared[key] = writer.activation(source, spec.range, spec.activations, layer.dtype, f"{layer.name}.input")
                model.graph.insert_before(layer.node, nodes)
            source = shared[key]
        layer.node.replace_input_with(0, source)
        layer.node.replace_input_with(1, weight)
        if not old.uses():
            model.graph.initializers.pop(str(old.name))
        if spec.output:
            quantize_output(model, layer, writer, spec.output)
    return model


def quantize_output(model: ir.Model, layer: Layer, writer: NodeWriter, clip: float) -> None:
    """Round a convolution's output too; its bias is added afterwards, so that it needs no type of its own."""
    node, made = layer.node, layer.node.outputs[0]
    uses = list(made.uses())
    nodes, value = writer.activation(made, clip, "int8", layer.dtype, f"{layer.name}.output")
    if len(node.inputs) > 2 and (bias := node.inputs[2]) is not None:
        array = _array(bias).astype(_numpy(layer.dtype))
        column = writer.constant(f"{layer.name}.bias.column", array.reshape(layer.column))
        node.replace_input_with(2, None)
        nodes.append(named("Add", [value, column], f"{layer.name}/bias"))
        value = nodes[-1].outputs[0]
        if not bias.uses():
            model.graph.initializers.pop(str(bias.name))
    if made.is_graph_output():
        raise UnsupportedError(f"{layer.name} makes an output of the network, which stays as it is.\n  Name it in keep.")
    for user, index in uses:
        user.replace_input_with(index, value)
    model.graph.insert_after(node, nodes)


def _fold(writer: NodeWriter, found: Sequence[Layer], specs: Mapping[str, Spec]) -> set[str]:
    """Divide the channels of LayerNormalizations whose readers all want the same division; names of the layers that are done."""
    readers: dict[ir.Value, list[Layer]] = {}
    for layer in found:
        readers.setdefault(layer.source, []).append(layer)
    done: set[str] = set()
    for source, group in readers.items():
        maker, wanted = source.producer(), {specs[each.name].factors if each.name in specs else () for each in group}
        if maker is None or maker.op_type != "LayerNormalization" or len(source.uses()) != len(group) or len(wanted) != 1:
            continue
        factors = np.array(next(iter(wanted)), np.float32)
        if not factors.size or any(value is None or not value.is_initializer() for value in maker.inputs[1:]):
            continue
        for index, value in list(enumerate(maker.inputs))[1:]:
            if value is None:
                continue
            array = (_array(value) / factors).astype(_numpy(value.dtype))
            maker.replace_input_with(index, writer.constant(f"{group[0].name}.norm.{index}", array))
            if not value.uses():
                writer.graph.initializers.pop(str(value.name))
        done.update(each.name for each in group)
    return done


def _array(value: ir.Value) -> np.ndarray:
    if value.const_value is None:
        raise RuntimeError(f"{value.name} is an initializer without a value")
    return value.const_value.numpy().astype(np.float32)


def _along(factors: np.ndarray, axis: int, rank: int) -> np.ndarray:
    return factors.reshape([-1 if index == axis else 1 for index in range(rank)])


def _numpy(dtype: ir.DataType | None) -> np.dtype[Any]:
    return ir.DataType.FLOAT.numpy() if dtype is None else dtype.numpy()


def _finite(scale: np.ndarray, dtype: ir.DataType | None, name: str) -> np.ndarray:
    """Scales in the type of what they scale.

    Raises:
        UnsupportedError: one is zero or infinite there.

    """
    typed = scale.astype(_numpy(dtype))
    if not np.isfinite(typed.astype(np.float32)).all() or not (typed > 0).all():
        raise UnsupportedError(
            f"{name} would get a scale of {float(scale.min()):.3g} to {float(scale.max()):.3g}, which {dtype} does not hold.\n"
            "  Name the layer in keep, or set the component's precision to fp32."
        )
    return typed

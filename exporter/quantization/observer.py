"""What goes into every layer, seen on real calls: the graph is run with its inner values as further outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from engines import plugins
from engines.bundle import place
from engines.errors import UnsupportedError
from engines.signature import Port, Signature

if TYPE_CHECKING:
    from engines.backends import Engine
    from exporter.onnx.layers import Layer
    from exporter.part import Case

#: Bins of a magnitude's histogram.
BINS = 2048
#: Of one value and call, at most so many numbers are counted, evenly spread; the largest is always found.
_COUNTED = 1 << 18
#: Of one value, so many rows are kept of all calls together, where rows are wanted.
_ROWS = 512
#: Bytes above which constants do not fit into a graph's own file.
_INLINE = 1_500_000_000


@dataclass
class ActivationStats:
    """What one value was in all calls.

    Attributes:
        largest: float64 (calls,), magnitude.
        counts: int64 (calls, BINS), histograms of the magnitude from 0 to `top`.
        top: a power of two.
        channels: float64 (channels,), largest magnitude of each.
        mean: float64 (channels,), mean magnitude of each, averaged over the calls.
        rows: float32 (n, channels), where they were wanted.

    """

    largest: list[float] = field(default_factory=list)
    counts: list[np.ndarray] = field(default_factory=list)
    top: float = 2.0**-20
    channels: np.ndarray | None = None
    mean: np.ndarray | None = None
    rows: list[np.ndarray] = field(default_factory=list)

    def see(self, array: np.ndarray, axis: int, calls: int, *, rows: bool) -> None:
        """Take in one call's value; `calls` are to come in all."""
        magnitude = np.abs(array)
        largest = float(magnitude.max())
        self.largest.append(largest)
        while largest >= self.top:
            self.top *= 2
            self.counts = [np.append(each.reshape(-1, 2).sum(axis=1), np.zeros(BINS // 2, np.int64)) for each in self.counts]
        flat = magnitude.reshape(-1)[:: max(1, magnitude.size // _COUNTED)]
        bins = (flat * np.float32(BINS / self.top)).astype(np.int64)
        self.counts.append(np.bincount(np.minimum(bins, BINS - 1), minlength=BINS))
        lines = np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis])
        size = np.abs(lines)
        peak, mean = size.max(axis=0).astype(np.float64), size.mean(axis=0, dtype=np.float64) / calls
        self.channels = peak if self.channels is None else np.maximum(self.channels, peak)
        self.mean = mean if self.mean is None else self.mean + mean
        if rows:
            wanted = max(1, _ROWS // calls)
            self.rows.append(lines[:: max(1, len(lines) // wanted)][:wanted].astype(np.float32))


def observe(
    graph: Path, found: Callable[[ir.Model], Sequence[Layer]], cases: Sequence[Case], signature: Signature, work: Path,
    *, outputs: bool, rows: bool, factors: Mapping[str, Sequence[float]],
) -> tuple[Mapping[str, ActivationStats], Mapping[str, ActivationStats]]:  # fmt: skip
    """Run every case and watch inputs of layers and, where asked, outputs of convolutions without their bias.

    Args:
        graph: ONNX file, its weights beside it.
        found: finds the layers in it.
        cases: calls of the network.
        signature: of the graph.
        work: an empty folder on the same disk.
        outputs: whether outputs of convolutions are watched.
        rows: whether rows are kept.
        factors: layer → by which its input's channels are divided before it is watched.

    Returns:
        Layer → its input, and convolution → its output.

    Raises:
        UnsupportedError: a value is NaN, infinite, or the same number throughout; names the layer.

    """
    model = ir.load(graph)
    taps: dict[ir.Value, tuple[str, Layer]] = {}
    for layer in found(model):
        taps.setdefault(layer.source, (f"tap_{len(taps)}", layer))
    after = {layer: f"out_{index}" for index, layer in enumerate(found(model)) if outputs and layer.kind == "conv"}
    tapped = {name: _tap(model, value, name) for value, (name, _) in taps.items()}
    tapped |= {name: _tap(model, _unbiased(model, layer), name) for layer, name in after.items()}
    model.graph.outputs.extend(tapped.values())
    ports = tuple(Port(name=name, shape=()) for name in tapped)
    inputs: dict[str, ActivationStats] = {name: ActivationStats() for name, _ in taps.values()}
    made: dict[str, ActivationStats] = {name: ActivationStats() for name in after.values()}
    axes = {name: layer.channels for name, layer in taps.values()} | dict.fromkeys(after.values(), 1)
    told = {name: f"the input of {layer.name}" for name, layer in taps.values()}
    told |= {name: f"the output of {layer.name}" for layer, name in after.items()}
    divisors = {name: np.array(factors[layer.name], np.float32) for name, layer in taps.values() if factors.get(layer.name)}
    wide = signature.model_copy(update={"outputs": (*signature.outputs, *ports)})
    with opened(model, graph, wide, work) as engine:
        for case in cases:
            answers = engine(case.inputs)
            for name, watched in (inputs | made).items():
                array = answers[name]
                _refuse(array, told[name], case.label)
                if name in divisors:
                    array = array / _along(divisors[name], axes[name], array.ndim)
                watched.see(array, axes[name], len(cases), rows=rows and name in inputs)
    for name, watched in (inputs | made).items():
        if not max(watched.largest):
            raise UnsupportedError(
                f"{told[name]} is 0 in all of {len(cases)} calls, so its scale would be zero.\n  Name the layer in keep."
            )
    by_layer = {layer.name: inputs[taps[layer.source][0]] for layer in found(model)}
    return by_layer, {layer.name: made[name] for layer, name in after.items()}


def opened(model: ir.Model, graph: Path, signature: Signature, work: Path, optimization: str = "all") -> Engine:
    """Run a changed graph with the reference runtime; what did not change of the weights stays where it is."""
    path, data = work / "changed.onnx", graph.with_name(f"{graph.name}.data")
    own = [value.const_value for value in model.graph.initializers.values()]
    own = [tensor for tensor in own if tensor is not None and not isinstance(tensor, ir.ExternalTensor)]
    if sum(tensor.nbytes for tensor in own) > _INLINE:
        ir.save(model, path, external_data="changed.onnx.data")
    else:
        ir.save(model, path)
        if data.exists():
            place(data, work / data.name)
    backend: Any = plugins.load("backends", "onnxruntime")(graph_optimization=optimization)
    return backend.open([path], signature)


def _tap(model: ir.Model, value: ir.Value, name: str) -> ir.Value:
    node = ir.node("Cast", [value], attributes={"to": ir.DataType.FLOAT.value}, name=name)
    node.outputs[0].name = name
    node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    model.graph.append(node)
    return node.outputs[0]


def _unbiased(model: ir.Model, layer: Layer) -> ir.Value:
    node = layer.node
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is None or bias.const_value is None:
        return node.outputs[0]
    array = bias.const_value.numpy()
    column = ir.Value(name=f"{layer.name}.bias.column", const_value=ir.tensor(array.reshape(layer.column)))
    model.graph.register_initializer(column)
    less = ir.node("Sub", [node.outputs[0], column])
    model.graph.append(less)
    return less.outputs[0]


def _along(factors: np.ndarray, axis: int, rank: int) -> np.ndarray:
    return factors.reshape([-1 if index == axis % rank else 1 for index in range(rank)])


def _refuse(array: np.ndarray, told: str, label: str) -> None:
    if not np.isfinite(array).all():
        bad = int(np.count_nonzero(~np.isfinite(array)))
        raise UnsupportedError(
            f"{told}: {bad} of {array.size} numbers are NaN or infinite at {label}, so they have no range.\n"
            "  Set the component's precision to fp32; if it is, the source model itself overflows."
        )

"""Moving large channels from activations into weights: SmoothQuant's rule, and AWQ's search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from exporter.quantization.calibration import LARGEST, short
from exporter.quantization.numerics import block_of, in_blocks

if TYPE_CHECKING:
    import onnx_ir as ir

    from exporter.onnx.layers import Layer
    from exporter.quantization.observer import ActivationStats

#: Exponents that the search tries; 0 leaves everything as it is.
_EXPONENTS = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75)


def smooth(found: Sequence[Layer], watched: Mapping[str, ActivationStats], alpha: float) -> dict[str, tuple[float, ...]]:
    """SmoothQuant (2211.10438, equation 4): s = max|X|^alpha / max|W|^(1 - alpha) per input channel.

    Layers that read the same value get the same factors, over the largest of their weights, so that they share one division.
    """
    factors = {}
    for group in _groups(found):
        peaks = watched[group[0].name].channels
        if peaks is None:
            continue
        weights = np.max([_peaks(layer) for layer in group], axis=0)
        scale = np.power(np.maximum(peaks, 1e-5), alpha) / np.power(np.maximum(weights, 1e-5), 1 - alpha)
        chosen = _plain(scale)
        factors |= {layer.name: chosen for layer in group}
    return factors


def search(found: Sequence[Layer], watched: Mapping[str, ActivationStats], block: int) -> dict[str, tuple[float, ...]]:
    """AWQ (2306.00978): s = mean|X|^e with the e whose 4-bit weights change the layers' outputs least, on rows that were seen.

    Only products: of a convolution the rows would be patches. Groups where nothing beats e = 0 get no factors.
    """
    factors = {}
    for group in _groups(found):
        seen = watched[group[0].name]
        if group[0].kind != "product" or seen.mean is None or not seen.rows:
            continue
        rows, mean = np.concatenate(seen.rows), np.maximum(seen.mean, 1e-8)
        weights = [_matrix(layer) for layer in group]
        if not (size := block_of(len(mean), block)):
            continue
        loss: Callable[[float], float] = lambda e: _loss(rows, weights, _plain(mean**e), size)  # noqa: B023, E731 - called here
        best = min(_EXPONENTS, key=loss)
        if best:
            factors |= {layer.name: _plain(mean**best) for layer in group}
    return factors


def _loss(rows: np.ndarray, weights: Sequence[np.ndarray], factors: Sequence[float], block: int) -> float:
    scale, total = np.array(factors, np.float32), 0.0
    for weight in weights:
        numbers, scales = in_blocks((weight * scale[:, None]).T, block)
        back = (numbers.reshape(-1, block) * scales.reshape(-1, 1)).reshape(numbers.shape).T / scale[:, None]
        total += float(np.square(rows @ (back - weight)).sum())
    return total


def _groups(found: Sequence[Layer]) -> list[list[Layer]]:
    """Layers that read one value, with one meaning of its channels."""
    groups: dict[tuple[ir.Value, int], list[Layer]] = {}
    for layer in found:
        if not layer.grouped:
            groups.setdefault((layer.source, layer.channels), []).append(layer)
    return list(groups.values())


def _matrix(layer: Layer) -> np.ndarray:
    """The weight as float32 (input channels, …)."""
    if layer.weight.const_value is None:
        raise RuntimeError(f"{layer.name} has a weight without a value")
    array = layer.weight.const_value.numpy().astype(np.float32)
    return np.moveaxis(array, layer.into, 0).reshape(array.shape[layer.into], -1)


def _peaks(layer: Layer) -> np.ndarray:
    return np.abs(_matrix(layer)).max(axis=1)


def _plain(scale: np.ndarray) -> tuple[float, ...]:
    """Around 1, so that neither side leaves the range of half precision, and short enough to be read."""
    normal = scale / np.sqrt(scale.max() * scale.min())
    return tuple(short(float(value)) for value in np.clip(normal, 1 / LARGEST["int8"], LARGEST["int8"]))

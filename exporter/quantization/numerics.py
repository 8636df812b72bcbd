"""Arrays of floats to arrays of few bits, and back: symmetric, round to nearest."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from exporter.quantization.calibration import LARGEST

#: Shares of the largest weight of a block at which 4 bits may clip; the one with the least squared error is taken.
_CLIPS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
#: Blocks that are searched at a time, which bounds the memory.
_CHUNK = 1 << 16


def per_channel(weight: np.ndarray, axis: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Quantize with one scale per index of an axis.

    Returns:
        int8 or float8 of the weight's shape, float32 scales (length of the axis,). A channel of zeros gets the largest scale.

    Raises:
        ValueError: all zero, or not finite; the caller knows the layer.

    """
    others = tuple(index for index in range(weight.ndim) if index != axis)
    peaks = np.abs(weight).max(axis=others).astype(np.float32)
    if not np.isfinite(peaks).all():
        raise ValueError("its weight is NaN or infinite somewhere")
    if not peaks.any():
        raise ValueError("its weight is zero throughout, so its scale would be zero")
    scale = np.where(peaks > 0, peaks, peaks.max()) / np.float32(LARGEST[kind])
    spread = weight.astype(np.float32) / np.expand_dims(scale, others)
    if kind == "fp8":
        return np.clip(spread, -448, 448).astype(ml_dtypes.float8_e4m3fn), scale
    return np.clip(np.rint(spread), -127, 127).astype(np.int8), scale


def in_blocks(rows: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Quantize (rows, columns) to 4 bits with one scale per `block` neighbours of a row.

    Returns:
        int8 in [-7, 7] (rows, columns), float32 scales (rows, columns / block).

    Raises:
        ValueError: all zero, or not finite.

    """
    blocks = rows.astype(np.float32).reshape(-1, block)
    if not np.isfinite(blocks).all():
        raise ValueError("its weight is NaN or infinite somewhere")
    peaks = np.abs(blocks).max(axis=1)
    if not peaks.any():
        raise ValueError("its weight is zero throughout, so its scale would be zero")
    peaks = np.where(peaks > 0, peaks, peaks.max())
    numbers, scales = np.empty(blocks.shape, np.int8), np.empty(len(blocks), np.float32)
    for start in range(0, len(blocks), _CHUNK):
        part, best = blocks[start : start + _CHUNK], np.full(len(blocks[start : start + _CHUNK]), np.inf)
        for clip in _CLIPS:
            scale = (peaks[start : start + _CHUNK] * np.float32(clip / LARGEST["int4"])).astype(np.float32)
            tried = np.clip(np.rint(part / scale[:, None]), -7, 7)
            error = np.square(tried * scale[:, None] - part).sum(axis=1)
            better = error < best
            best[better] = error[better]
            numbers[start : start + _CHUNK][better] = tried[better].astype(np.int8)
            scales[start : start + _CHUNK][better] = scale[better]
    return numbers.reshape(rows.shape), scales.reshape(len(rows), -1)


def block_of(length: int, wanted: int) -> int:
    """The largest power of two, at most `wanted` and at least 16, that divides a length; 0 where none does."""
    while wanted >= 16 and length % wanted:
        wanted //= 2
    return wanted if wanted >= 16 else 0

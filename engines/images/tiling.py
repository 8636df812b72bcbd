"""Decode a latent tile by tile: memory is that of one tile, whatever the picture's size; seams are blended away."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from engines.manifest import Tile

#: Latent (pictures, channels, h, w) → image (pictures, factor*h, factor*w, 3).
Decode = Callable[[np.ndarray], np.ndarray]


def decoded(decode: Decode, latent: np.ndarray, tile: Tile, factors: Sequence[int]) -> np.ndarray:
    """Decode in tiles of one size, spread evenly, and blend them linearly where they overlap.

    Args:
        decode: of one tile.
        latent: float32 (pictures, channels, height, width).
        tile: its side, and the least that two neighbours share, in cells of the latent.
        factors: pixels per cell, down and across.

    Returns:
        Image, float32 (pictures, height * factor, width * factor, 3).

    """
    lengths = latent.shape[2:]
    sides = [min(tile.size, length) for length in lengths]
    rows, columns = (_starts(*each, tile.overlap) for each in zip(lengths, sides, strict=True))
    image, total = (np.zeros((len(latent), *map(np.multiply, lengths, factors), depth), np.float32) for depth in (3, 1))
    for top, left in itertools.product(rows, columns):
        made = decode(np.ascontiguousarray(latent[:, :, top : top + sides[0], left : left + sides[1]]))
        down, across = (
            _ramps(start, side, length, tile.overlap, factor)
            for start, side, length, factor in zip((top, left), sides, lengths, factors, strict=True)
        )
        weight = (down[:, None] * across)[:, :, None]
        place = np.s_[:, top * factors[0] :, left * factors[1] :]
        image[place][:, : made.shape[1], : made.shape[2]] += weight * made
        total[place][:, : made.shape[1], : made.shape[2]] += weight
    return image / total


def _starts(length: int, side: int, overlap: int) -> list[int]:
    """Where tiles begin, in cells: as few as cover the length, each sharing at least `overlap` with the next."""
    count = 1 if length == side else -(-(length - overlap) // (side - overlap))
    return [round(number * (length - side) / max(1, count - 1)) for number in range(count)]


def _ramps(start: int, side: int, length: int, overlap: int, factor: int) -> np.ndarray:
    """A tile's weight along one axis, per pixel: rising over the overlap from an edge inside the picture, else 1."""
    pixels = np.arange(side * factor, dtype=np.float32) + 0.5
    rise = np.minimum(pixels / (overlap * factor), 1)
    return (rise if start else np.ones_like(rise)) * (rise[::-1] if start + side < length else 1)

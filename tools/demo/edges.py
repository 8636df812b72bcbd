"""The demo's condition pictures: where a picture's colours change, white on black."""

from __future__ import annotations

import numpy as np

_STEP = 32
"""Least difference to the pixel on the right or below, of any channel, that is an edge."""


def edges(picture: np.ndarray) -> np.ndarray:
    """The edges of a picture, uint8 (H, W, 3): 255 on both sides of every step in colour, else 0; of the same shape."""
    levels = np.asarray(picture, dtype=np.int16)
    found = np.zeros(levels.shape[:2], dtype=bool)
    across = np.abs(np.diff(levels, axis=1)).max(-1) >= _STEP
    down = np.abs(np.diff(levels, axis=0)).max(-1) >= _STEP
    found[:, :-1] |= across
    found[:, 1:] |= across
    found[:-1] |= down
    found[1:] |= down
    return np.repeat(found[..., None], 3, axis=-1).astype(np.uint8) * 255

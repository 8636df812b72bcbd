"""Pictures of many prompts: in groups of one call each, every picture from a seed of its own, and as what scores take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

#: Pictures that are drawn by one call; each is that of its own seed, however many are drawn together.
_TOGETHER = 8


def groups(prompts: Sequence[str], seed: int) -> Iterator[tuple[list[str], list[int]]]:
    """Prompts and seeds, call by call: picture i is of `seed` + i."""
    for first in range(0, len(prompts), _TOGETHER):
        texts = list(prompts[first : first + _TOGETHER])
        yield texts, [seed + first + index for index in range(len(texts))]


def pixels(pictures: Sequence[Image.Image]) -> np.ndarray:
    """uint8 (pictures, height, width, 3)."""
    return np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])

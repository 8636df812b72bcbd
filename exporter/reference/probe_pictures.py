"""Pictures that a recording feeds to a model that is conditioned on some: smooth colours, and masks of half a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from engines.signature import dimension

if TYPE_CHECKING:
    from engines.inputs import Input

#: Colours across and down, between which it is smooth.
_SPOTS = 4


def probe_pictures(
    inputs: Mapping[str, Input], count: int, sides: Mapping[str, int], random: np.random.Generator
) -> dict[str, np.ndarray]:
    """Make pictures, uint8 (count, height, width, channels) by input; whole numbers, int64 (count,); and noise.

    Whole numbers that have a default are the same for all, as diffusers' pipelines take those for one call.

    Args:
        inputs: what users feed; other numbers are left out.
        count: pictures of each.
        sides: lengths of the latent's named sides.
        random: where colours come from.

    """
    made = {name: _pictures(entry, count, sides, random) for name, entry in inputs.items() if entry.pictured}
    asked = {name: entry for name, entry in inputs.items() if entry.kind == "integer"}
    drawn = {name: entry.shape[1:] for name, entry in inputs.items() if entry.kind == "noise"}
    made |= {name: random.standard_normal((count, *map(int, shape)), np.float32) for name, shape in drawn.items()}
    return made | {name: _numbers(entry, count, random) for name, entry in asked.items()}


def _numbers(entry: Input, count: int, random: np.random.Generator) -> np.ndarray:
    low = int(entry.minimum or 0)
    high = low + 1 if entry.maximum is None else int(entry.maximum)
    several = entry.default is None
    return np.resize(random.integers(low, high, count if several else 1, np.int64, endpoint=True), count)


def _pictures(entry: Input, count: int, sides: Mapping[str, int], random: np.random.Generator) -> np.ndarray:
    lengths = (dimension(dim) if isinstance(dim, str) else (dim, "") for dim in entry.shape[1:3])
    height, width = (factor * sides.get(name, 1) for factor, name in lengths)
    if entry.kind == "mask":
        masks = np.zeros((count, height, width, 1), np.uint8)
        for number, mask in enumerate(masks):  # half of it, of the next one the other half
            mask[:, (width // 2 if number % 2 == 0 else 0) :][:, : width - width // 2] = 255
        return masks
    spots = random.integers(0, 256, (count, _SPOTS, _SPOTS, 3), np.uint8)
    smooth = (Image.fromarray(each).resize((width, height), Image.Resampling.BICUBIC) for each in spots)
    return np.stack([np.asarray(each.convert("L" if entry.shape[-1] == 1 else "RGB")) for each in smooth]).reshape(
        count, height, width, int(entry.shape[-1])
    )

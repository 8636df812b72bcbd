"""Pictures of prompts: which bundles draw them, in groups of one call each, every picture of a seed of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from PIL import Image

from engines.errors import UnsupportedError
from engines.inputs import Input

#: Pictures that are drawn by one call; each is that of its own seed, however many are drawn together.
_TOGETHER = 8


def require_prompts_alone(inputs: Mapping[str, Input], who: str) -> None:
    """Raise UnsupportedError where a bundle with these inputs cannot be drawn with by `who`, who has no more than prompts."""
    if needed := [name for name, entry in inputs.items() if entry.default is None]:
        told = f"{who} draws from prompts alone, and this model needs {' and '.join(needed)} too."
        raise UnsupportedError(f"{told}\n  Look at its pictures by t2iexport generate, with --input {needed[0]}=…")


def groups(prompts: Sequence[str], seed: int) -> Iterator[tuple[list[str], list[int]]]:
    """Prompts and seeds, call by call: picture i is of `seed` + i."""
    for first in range(0, len(prompts), _TOGETHER):
        texts = list(prompts[first : first + _TOGETHER])
        yield texts, [seed + first + index for index in range(len(texts))]


def pixels(pictures: Sequence[Image.Image]) -> np.ndarray:
    """uint8 (pictures, height, width, 3)."""
    return np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])

"""Which LoRAs a request asks for, and how strongly each image has them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, cast

from engines.errors import UnsupportedError

#: One LoRA as a caller names it: `FILE`, `FILE:SCALE`, `FILE:SCALE,SCALE…`, or the file and a scale, or several, one an image.
Wish = str | Path | tuple[str | Path, float | Sequence[float]]


@dataclass(frozen=True)
class LoraChoice:
    """A file, and its scale for each image."""

    file: Path
    scales: tuple[float, ...]


def chosen(wishes: Sequence[Wish], each: Callable[[str, Any], list[Any]]) -> list[LoraChoice]:
    """LoRAs with a scale for each image; `each` spreads a scale for all, one a prompt, or one an image.

    Raises:
        UnsupportedError: a scale is no finite number, there are too many or too few, or a file is named twice.

    """
    found: list[LoraChoice] = []
    for wish in wishes:
        file, scales = _read(wish)
        for scale in scales:
            if isinstance(scale, bool) or not isinstance(scale, Real) or not math.isfinite(scale):
                raise UnsupportedError(f"LoRA {file}: scale {scale} is not a number to multiply by. Give a finite one.")
        if any(file == other.file for other in found):
            raise UnsupportedError(f"LoRA {file} is named twice. Keep one, with the sum of the scales.")
        found.append(LoraChoice(file, tuple(map(float, each(f"scale of {file.name}", list(scales))))))
    return found


def _read(wish: Wish) -> tuple[Path, Sequence[float]]:
    if isinstance(wish, tuple):
        file, scale = wish
        return Path(file), cast("Sequence[float]", scale) if isinstance(scale, list | tuple) else [cast("float", scale)]
    text = str(wish)
    name, colon, tail = text.rpartition(":")
    if isinstance(wish, Path) or not colon or Path(text).exists():
        return Path(text), [1.0]
    try:
        return Path(name), [float(number) for number in tail.split(",")]
    except ValueError as error:
        raise UnsupportedError(f"LoRA {text}: {tail!r} is no scale. Write FILE:0.8, or FILE:0.8,0 for one an image.") from error

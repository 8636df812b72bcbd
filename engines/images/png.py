"""Arrays → pictures, and pictures → PNG files that say how they were made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import uuid4

import numpy as np
from PIL import Image, PngImagePlugin

from engines.errors import UnsupportedError


def picture(image: np.ndarray, facts: Mapping[str, str]) -> Image.Image:
    """Turn float32 (height, width, 3) in [0, 1] into a picture that carries `facts` as its `info`.

    Raises:
        UnsupportedError: there is NaN or infinity in it.

    """
    if not np.isfinite(image).all():
        raise UnsupportedError("the decoder returned NaN or infinity. If it computes in fp16, build it with precision fp32.")
    made = Image.fromarray((image.clip(0, 1) * 255).round().astype(np.uint8), "RGB")
    made.info.update(facts)
    return made


def save(pictures: Sequence[Image.Image], path: Path) -> list[Path]:
    """Write PNG files with their facts as text: `path`, or `path` with -1, -2 … before the suffix when there are several.

    Each is written beside its place and put there when all are whole.

    Raises:
        UnsupportedError: the path does not end in .png.
        OSError: the disk is full, or the like.

    """
    if path.suffix.lower() != ".png":
        raise UnsupportedError(f"{path}: pictures are written as PNG. End the name in .png.")
    count = len(pictures)
    paths = [path] if count == 1 else [path.with_stem(f"{path.stem}-{index}") for index in range(1, count + 1)]
    partial = {place: place.with_name(f".{place.name}.{uuid4().hex[:8]}.partial") for place in paths}
    try:
        for made, place in zip(pictures, paths, strict=True):
            text = PngImagePlugin.PngInfo()
            for key, value in made.info.items():
                text.add_itxt(str(key), str(value))
            made.save(partial[place], format="PNG", pnginfo=text)
        for place, written in partial.items():
            written.replace(place)
    finally:
        for written in partial.values():
            written.unlink(missing_ok=True)
    return paths

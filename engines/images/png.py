"""Arrays → pictures, and pictures → PNG files that say how they were made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import uuid4

import numpy as np
from PIL import Image, PngImagePlugin

from engines.disk import writing
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


def places(path: Path, count: int) -> list[Path]:
    """Where so many pictures go: `path`, or `path` with -1, -2 … before the suffix when there are several.

    Raises:
        UnsupportedError: the path does not end in .png.

    """
    if path.suffix.lower() != ".png":
        raise UnsupportedError(f"{path}: pictures are written as PNG. End the name in .png.")
    return [path] if count == 1 else [path.with_stem(f"{path.stem}-{index}") for index in range(1, count + 1)]


def save(pictures: Sequence[Image.Image], path: Path) -> list[Path]:
    """Write PNG files with their facts as text, each to its place.

    Raises:
        UnsupportedError, MachineError: as for `places` and `write`.

    """
    paths = places(path, len(pictures))
    for made, place in zip(pictures, paths, strict=True):
        write(made, place)
    return paths


def write(made: Image.Image, path: Path) -> None:
    """Write one PNG file with its facts as text: beside its place, and put there when it is whole.

    Raises:
        MachineError: the disk is full, or the like.

    """
    partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}.partial")
    text = PngImagePlugin.PngInfo()
    for key, value in made.info.items():
        text.add_itxt(str(key), str(value))
    with writing(path.parent, f"writing {path}"):
        try:
            made.save(partial, format="PNG", pnginfo=text)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

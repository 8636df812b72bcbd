"""Pictures that users feed → arrays of an input's shape, by its preprocessing."""

from __future__ import annotations

import numpy as np
from PIL import Image

from engines.errors import UnsupportedError
from engines.images import modes
from engines.inputs import Input, Preprocessing


def fed(name: str, entry: Input, image: Image.Image, height: int, width: int) -> np.ndarray:
    """Return float32 (height, width, channels); the size is in pixels of this input.

    Raises:
        UnsupportedError: the picture has another size and none may be made of it, or its mode makes no sense.

    """
    preprocessing = entry.preprocessing or Preprocessing()
    if image.size != (width, height) and preprocessing.resize == "none":
        raise UnsupportedError(
            f"input {name}: {image.width}x{image.height} pixels (width x height), and {width}x{height} are needed. "
            "Crop or resize it."
        )
    depth = int(entry.shape[-1])
    if entry.kind == "mask":
        modes.grey(image, f"input {name}")  # which refuses what is transparent
    # Resized in colour, and then made grey, as diffusers does.
    shown = _resized(modes.rgb(image, f"input {name}"), (width, height), preprocessing).convert("RGB" if depth > 1 else "L")
    levels = np.asarray(shown, np.float32).reshape(height, width, depth) / 255
    return _prepared(levels, preprocessing)


def plain(entry: Input, height: int, width: int) -> np.ndarray:
    """What is fed where no picture is given: the input's default grey, as `fed` would have it."""
    levels = np.full((height, width, int(entry.shape[-1])), entry.default, np.float32)
    return _prepared(levels, entry.preprocessing or Preprocessing())


def _prepared(levels: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Make of float32 (height, width, channels) in [0, 1] that has the right size."""
    if preprocessing.invert:
        levels = 1 - levels
    if preprocessing.binarize:
        levels = (levels >= 0.5).astype(np.float32)
    mean, std = (np.asarray(numbers, np.float32) for numbers in (preprocessing.mean, preprocessing.std))
    return (levels - mean) / std


def _resized(image: Image.Image, size: tuple[int, int], preprocessing: Preprocessing) -> Image.Image:
    if image.size == size:
        return image
    resample = Image.Resampling[preprocessing.resample.upper()]
    whole, (left, top) = covering(image.size, size, preprocessing)
    resized = image.resize(whole, resample)
    return resized if whole == size else resized.crop((left, top, left + size[0], top + size[1]))


def covering(
    before: tuple[int, int], size: tuple[int, int], preprocessing: Preprocessing
) -> tuple[tuple[int, int], tuple[int, int]]:
    """To which width and height a picture is resized, and from which left and top what is kept of it begins."""
    if preprocessing.resize == "stretch":
        return size, (0, 0)
    width, height = size  # the longer side is rounded down, as transformers and diffusers have it
    if before[0] * height > before[1] * width:
        width = before[0] * height // before[1]
    else:
        height = before[1] * width // before[0]
    return (width, height), ((width - size[0]) // 2, (height - size[1]) // 2)

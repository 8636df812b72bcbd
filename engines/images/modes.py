"""A picture of any mode as 8-bit RGB or 8-bit grey: by a rule that is stated, or refused by its mode's name."""

from __future__ import annotations

import numpy as np
from PIL import Image

from engines.errors import UnsupportedError

_WHITE_16 = 65535
#: Levels of 16 bits to one of 8, so that white stays white.
_STEP = 257


def rgb(image: Image.Image, what: str = "image") -> Image.Image:
    """Return 8-bit RGB: grey of 16 bits and float in [0, 1] scaled, what is transparent laid on white.

    Raises:
        UnsupportedError: nothing says which number is white; it names `what` it was.

    """
    image = _eight_bits(image, what)
    if not image.has_transparency_data:
        return image.convert("RGB")
    shown = _with_alpha(image)
    return Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown).convert("RGB")


def grey(image: Image.Image, what: str = "mask") -> Image.Image:
    """Return 8-bit grey, as `rgb` does; but refuse transparency, in which programs put opposite meanings of a mask.

    Raises:
        UnsupportedError: as `rgb`, or something of it is transparent.

    """
    image = _eight_bits(image, what)
    if image.has_transparency_data and _with_alpha(image).getchannel("A").getextrema() != (255, 255):
        raise UnsupportedError(
            f"the {what} is transparent in places, and to some programs that means 'change this', to others 'keep this'. "
            "Save it in black and white without transparency: white is made anew."
        )
    return rgb(image, what).convert("L")


def _with_alpha(image: Image.Image) -> Image.Image:
    return (image.convert("LA") if image.mode == "La" else image).convert("RGBA")


def _eight_bits(image: Image.Image, what: str) -> Image.Image:
    """The same, where its numbers are of more than 8 bits scaled to these."""
    if image.mode == "F":
        levels = np.asarray(image)
        if not (levels.min() >= 0 and levels.max() <= 1):  # also refuses NaN
            raise UnsupportedError(
                f"the {what} is of float numbers from {levels.min():g} to {levels.max():g}, and only 0 (black) to 1 (white) is "
                "known. Scale it, or save it with 8 or 16 bits."
            )
        return Image.fromarray((levels * 255).round().astype(np.uint8), "L")
    if image.mode == "I" or image.mode.startswith("I;16"):
        levels = np.asarray(image)
        # Of 32-bit numbers the largest must tell that they are 16-bit ones in a wider file.
        if image.mode == "I" and not (levels.min() >= 0 and 255 < levels.max() <= _WHITE_16):
            raise UnsupportedError(
                f"the {what} is of 32-bit whole numbers from {levels.min()} to {levels.max()}, and nothing says which is white. "
                "Save it with 8 or 16 bits."
            )
        return Image.fromarray((levels.astype(np.float64) / _STEP).round().astype(np.uint8), "L")
    return image

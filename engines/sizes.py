"""Which pictures a bundle can make: sides in pixels, and the latent that belongs to them."""

from __future__ import annotations

import math
from typing import Any

from engines.bundle import Bundle, Defaults, PartEntry
from engines.errors import BundleError, UnsupportedError
from engines.feed import Feed
from engines.signature import dimension


class Sizes:
    """The sides that denoiser and decoder have in common.

    Attributes:
        factors: pixels per cell of the latent, down and across.
        ranges: per axis, height then width: smallest and largest picture in pixels, and the step between.

    Raises:
        BundleError: there are none.

    """

    def __init__(self, bundle: Bundle) -> None:
        (denoiser,), (decoder,) = (bundle.manifest.with_role(role).values() for role in ("denoiser", "decoder"))
        latent, image = axes(denoiser, "latent"), axes(decoder, "image")
        self._channels = denoiser.signature.lengths(latent[1])[0]
        self._sides = latent[2:]
        self.factors: list[int] = []
        self.ranges: list[tuple[int, int, int]] = []
        for latent_axis, image_axis in ((2, 1), (3, 2)):
            made = decoder.signature.lengths(image[image_axis])
            factor = made[0] // decoder.signature.lengths(axes(decoder, "latent")[latent_axis])[0]
            low, high, step = (length * factor for length in denoiser.signature.lengths(latent[latent_axis]))
            top = high if decoder.tile else min(high, made[1])
            if not factor or max(low, made[0]) > top:
                raise BundleError(f"{bundle.folder}: no picture size fits both denoiser and decoder. Build the bundle again.")
            self.factors.append(factor)
            self.ranges.append((max(low, made[0]), top, math.lcm(step, made[2])))

    def fit(self, height: int, width: int) -> None:
        """Raise UnsupportedError for a size in pixels that cannot be made; it says which can."""
        for axis, length, (low, high, step) in zip(("height", "width"), (height, width), self.ranges, strict=True):
            if not low <= length <= high or length % step:
                allowed = f"{low} to {high} in steps of {step}" if low < high else str(low)
                raise UnsupportedError(f"{axis} {length}: this bundle makes pictures of {axis} {allowed} pixels.")

    def fit_image(self, height: int, width: int, own: tuple[int, int] | None = None) -> None:
        """The same, of the size that a given image has or is to have.

        `own`: height and width of an image of which a picture of that size is made, as upscalers do.
        """
        try:
            self.fit(height, width)
        except UnsupportedError as error:
            shown = own or (height, width)
            made = "" if shown == (height, width) else f", of which {width}x{height} are made,"
            raise UnsupportedError(
                f"an image of {shown[1]}x{shown[0]} pixels (width x height){made} does not fit. {error} Crop or resize it, or "
                "give height and width to have it resized."
            ) from error

    def chosen(self, feed: Feed, defaults: Defaults, height: int | None, width: int | None) -> tuple[int, int]:
        """Height and width in pixels: as asked for, else of a picture that is fed, else the bundle's own; checked where fed."""
        if height is None and width is None and (found := feed.size(self.factors)):
            made, own = found
            self.fit_image(*made, own)
            return made
        return defaults.height if height is None else height, defaults.width if width is None else width

    def latent(self, count: int, height: int, width: int) -> tuple[int, int, int, int]:
        """Shape of the latent of that many pictures of a size in pixels."""
        return count, self._channels, height // self.factors[0], width // self.factors[1]

    def named(self, height: int, width: int) -> dict[str, int]:
        """Lengths of the latent's named sides, for a size in pixels."""
        cells = self.latent(1, height, width)[2:]
        names = [(dimension(side), length) for side, length in zip(self._sides, cells, strict=True) if isinstance(side, str)]
        return {name: length // factor for (factor, name), length in names}


def axes(part: PartEntry, name: str) -> tuple[Any, ...]:
    """Lengths of one of a part's ports, or of none."""
    port = part.signature.port(name)
    return port.shape if port else ()

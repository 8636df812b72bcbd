"""The picture that is changed: its pixels, which of them are made anew, and how far."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from engines.errors import UnsupportedError
from engines.images import modes

if TYPE_CHECKING:
    from engines.manifest import PartialStep

#: diffusers' own, without a mask and with one.
_STRENGTH, _STRENGTH_OF_MASK = 0.8, 1.0


@dataclass(frozen=True)
class InitImage:
    """A picture to start from, or one for each picture that is made.

    Attributes:
        pixels: uint8 (height, width, 3), or (pictures, height, width, 3).
        anew: bool, with the same leading axes, True where a pixel is made anew, else the original's is kept; None: all of them.
        strength: share of the sampler's steps that is taken, above 0 and up to 1.

    """

    pixels: np.ndarray
    anew: np.ndarray | None
    strength: float

    @classmethod
    def of(
        cls,
        image: Image.Image,
        mask: Image.Image | None = None,
        strength: float | None = None,
        height: int | None = None,
        width: int | None = None,
    ) -> InitImage:
        """Take pictures as the user has them; another size in pixels resizes them.

        Raises:
            UnsupportedError: the mask is of another size or all black, or the strength no share.

        """
        if mask is not None and mask.size != image.size:
            raise UnsupportedError(f"the mask is {_size(mask)} pixels and the image {_size(image)}. Make them of one size.")
        chosen = (_STRENGTH if mask is None else _STRENGTH_OF_MASK) if strength is None else strength
        if not 0 < chosen <= 1:  # also refuses NaN
            raise UnsupportedError(f"strength {chosen:g} is out of range. Give more than 0 (keeps the image), up to 1.")
        size = image.width if width is None else width, image.height if height is None else height
        anew = None
        if mask is not None:
            # White where the grey is at least one half, as diffusers' mask processor has it.
            anew = np.asarray(_resized(modes.grey(mask), size)) >= 128
            if not anew.any():
                raise UnsupportedError("the mask is black, so nothing would be made anew. Paint white what should change.")
        return cls(np.asarray(_resized(modes.rgb(image), size)), anew, chosen)

    @classmethod
    def each(
        cls,
        images: Image.Image | Sequence[Image.Image],
        masks: Image.Image | Sequence[Image.Image] | None,
        strength: float | None,
        height: int | None,
        width: int | None,
    ) -> InitImage:
        """Take one picture, or one for each that is made, with one mask for all or one for each.

        Raises:
            UnsupportedError: as `of`; or they have several sizes, or the masks another number.

        """
        given = [images] if isinstance(images, Image.Image) else list(images)
        covers: list[Image.Image | None] = [*masks] if isinstance(masks, Sequence) else [masks] * len(given)
        if len(covers) != len(given):
            raise UnsupportedError(f"{len(given)} images and {len(covers)} masks. Give one mask for all, or one for each image.")
        found: dict[tuple[int, int], InitImage] = {}  # most often one picture is for all
        pairs = list(zip(given, covers, strict=True))
        for image, mask in pairs:
            if (id(image), id(mask)) not in found:
                found[id(image), id(mask)] = cls.of(image, mask, strength, height, width)
        if len(found) == 1:
            return next(iter(found.values()))
        all_ = [found[id(image), id(mask)] for image, mask in pairs]
        sizes = sorted({original.size for original in all_})
        if len(sizes) > 1:
            told = ", ".join(f"{wide}x{high}" for high, wide in sizes)
            raise UnsupportedError(f"the images are of several sizes: {told}. Give height and width to have them resized.")
        anew = [original.anew for original in all_ if original.anew is not None]
        return cls(np.stack([original.pixels for original in all_]), np.stack(anew) if anew else None, all_[0].strength)

    @classmethod
    def asked(
        cls,
        images: Image.Image | Sequence[Image.Image] | None,
        masks: Image.Image | Sequence[Image.Image] | None,
        strength: float | None,
        height: int | None,
        width: int | None,
        fit: Callable[[int, int], None],
    ) -> InitImage | None:
        """Take what was given, once `fit` has not refused the height and width of any of it; None where no picture was.

        Raises:
            UnsupportedError: as `each` and `fit`; or there is only what says how a picture changes.

        """
        if images is None:
            for name, value in (("mask", masks), ("strength", strength)):
                if value is not None:
                    raise UnsupportedError(f"a {name} says how an image changes, and there is no image. Give one.")
            return None
        for one in [images] if isinstance(images, Image.Image) else images:
            fit(one.height if height is None else height, one.width if width is None else width)
        return cls.each(images, masks, strength, height, width)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[-3], self.pixels.shape[-2]

    @property
    def alone(self) -> bool:
        """Whether it begins with noise alone: a mask at full strength; the original is then only in what is kept."""
        return self.anew is not None and self.strength == 1

    @staticmethod
    def left_out(steps: int, strength: float, partial: PartialStep) -> int:
        """How many of that many steps a strength leaves out, as diffusers' `get_timesteps` computes it; none of those spread."""
        if partial == "spread":
            return 0
        taken = min(steps * strength, steps)
        return steps - int(taken) if partial == "dropped" else int(max(steps - taken, 0))

    def start(self, steps: int, partial: PartialStep = "dropped") -> int:
        """How many of that many steps are left out.

        Raises:
            UnsupportedError: all of them; says the smallest strength that takes one.

        """
        found = self.left_out(steps, self.strength, partial)
        if found == steps:
            least = math.ceil(1000 / steps) / 1000
            raise UnsupportedError(
                f"strength {self.strength:g} of {steps} steps takes none. Give at least {least:g}, or more steps."
            )
        return found

    def images(self, count: int) -> np.ndarray:
        """The picture as an encoder takes it, float32 (count, height, width, 3) in [0, 1]."""
        images = self.pixels.astype(np.float32) / 255
        return images if images.ndim == 4 else np.repeat(images[None], count, axis=0)

    def cells(self, height: int, width: int) -> np.ndarray | None:
        """Which cells of a latent of that size are made anew, bool (1 or pictures, 1, height, width).

        The first pixel of each decides, as in diffusers.

        Raises:
            UnsupportedError: none of them.

        """
        if self.anew is None:
            return None
        high, wide = self.size[0] // height, self.size[1] // width
        cells = self.anew[..., ::high, ::wide]
        if not cells.any((-2, -1)).all():
            raise UnsupportedError(
                f"the mask's white lies between the corners of the model's cells of {high}x{wide} pixels, so nothing would be "
                "made anew. Make it larger."
            )
        return cells.reshape(-1, 1, *cells.shape[-2:])

    def keep(self, images: np.ndarray) -> np.ndarray:
        """Put the original's pixels back where the mask is black; float32 (pictures, height, width, 3), in and out."""
        return images if self.anew is None else np.where(self.anew[..., None], images, self.images(1))

    def facts(self, index: int = 0) -> dict[str, str]:
        """What a picture, the one of that number, says of what it was made from."""
        own = (slice(None),) if self.pixels.ndim == 3 else (index,)
        facts = {"strength": repr(float(self.strength)), "image_sha256": digest(self.pixels[own])}
        return facts if self.anew is None else {**facts, "mask_sha256": digest(self.anew[own])}


def digest(array: np.ndarray) -> str:
    """SHA-256 of an array's shape and content, whatever file it came in."""
    return hashlib.sha256(f"{array.dtype.str}{list(array.shape)}".encode() + np.ascontiguousarray(array).tobytes()).hexdigest()


def read(path: Path) -> Image.Image:
    """Read a picture file, turned upright where the camera says how.

    Raises:
        UnsupportedError: it is none that can be read, or larger than is safe.

    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                opened.load()
                return ImageOps.exif_transpose(opened)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise UnsupportedError(f"{path} cannot be read as a picture: {error}. Give a PNG, JPEG or the like.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnsupportedError(f"{path} is too large: {error}. Give a smaller picture.") from error


def _size(image: Image.Image) -> str:
    return f"{image.width}x{image.height}"


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)

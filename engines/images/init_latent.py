"""The latent that another run has left between two steps, which this one goes on from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from engines.errors import UnsupportedError
from engines.images.init_image import digest


@dataclass(frozen=True)
class InitLatent:
    """What is handed over, in the place of a picture to start from (`engines.images.init_image.InitImage`).

    Attributes:
        latents: float32 (pictures, channels, latent height, latent width), as the sampler has them before they are scaled.
        start: share of the noise's way that lies behind, between 0 and 1.
        size: height and width in pixels of the pictures.

    """

    latents: np.ndarray
    start: float
    size: tuple[int, int]
    #: Nothing of it is kept where a mask is black: there is none.
    anew: None = None

    @classmethod
    def of(cls, given: Sequence[Any] | None, start: float, channels: int, factors: Sequence[int]) -> InitLatent:
        """Take what was given, one array (channels, latent height, latent width) a picture.

        Raises:
            UnsupportedError: the share is none, or these are no such latents.

        """
        if not 0 < start < 1:  # also refuses NaN
            raise UnsupportedError(f"denoising_start {start:g} is out of range. Give a number between 0 and 1, such as 0.8.")
        kinds = {type(one).__name__ for one in given or () if not isinstance(one, np.ndarray)}
        if given is None or kinds:
            raise UnsupportedError(
                f"denoising_start is of latents, and {f'a {min(kinds)} was given' if kinds else 'there are none'}. Give as "
                "image the latents that another bundle returned with denoising_end."
            )
        arrays = cast("Sequence[np.ndarray]", given)
        shapes = sorted({array.shape for array in arrays})
        if len(shapes) > 1 or len(shapes[0]) != 3 or shapes[0][0] != channels:
            told = " and ".join(str([*shape]) for shape in shapes[:2])
            raise UnsupportedError(
                f"the latents are {told}, and this bundle's are [{channels}, latent height, latent width] of each picture, all "
                "of one size."
            )
        latents = np.stack(arrays).astype(np.float32)
        if not np.isfinite(latents).all():
            raise UnsupportedError("there is NaN or infinity in the latents. Make them anew.")
        height, width = (length * factor for length, factor in zip(latents.shape[2:], factors, strict=True))
        return cls(latents, start, (height, width))

    def cells(self, _height: int, _width: int) -> None:
        """No mask: all is made anew."""

    def keep(self, images: np.ndarray) -> np.ndarray:
        """Nothing is put back."""
        return images

    def facts(self, index: int = 0) -> dict[str, str]:
        """What a picture, the one of that number, says of what it was made from."""
        return {"denoising_start": repr(float(self.start)), "image_sha256": digest(self.latents[index])}


def each(image: Any) -> Any:  # noqa: ANN401 - pictures or arrays
    """Latents in one array as a list of one a picture; everything else as it is.

    Raises:
        UnsupportedError: an array of another number of axes.

    """
    if not isinstance(image, np.ndarray):
        return image
    latents = cast("np.ndarray", image)
    if latents.ndim not in (3, 4):
        raise UnsupportedError(f"latents are [pictures, channels, latent height, latent width], and not {[*latents.shape]}.")
    return [*latents] if latents.ndim == 4 else [latents]

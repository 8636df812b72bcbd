"""What a pipeline drew, as its networks return it, with what each picture says of how it was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from engines.images.png import picture


@dataclass(frozen=True)
class Drawn:
    """Pictures before they are 8-bit ones.

    Attributes:
        latents: final, float32 (pictures, channels, latent height, latent width); None of a fused pipeline, which has none.
        images: float32 (pictures, height, width, 3) in [0, 1]; None where they were not decoded.
        facts: of each picture, what its `info` says.

    """

    latents: np.ndarray | None
    images: np.ndarray | None
    facts: Sequence[Mapping[str, str]]

    def pictures(self) -> list[Image.Image]:
        """8-bit pictures that say how they were made; none where nothing was decoded."""
        if self.images is None:
            return []
        return [picture(image, facts) for image, facts in zip(self.images, self.facts, strict=True)]

"""One kind of sampler per file. A sampler plays denoiser calls and noise into a final latent; it knows no model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, Self

import numpy as np

#: `denoise(latent, timestep)`: float32 (B, C, H, W) and a model time → model output of the latent's shape.
Denoise = Callable[[np.ndarray, float], np.ndarray]
#: `draw()`: the next standard normal noise, float32 (B, C, H, W).
Draw = Callable[[], np.ndarray]


#: `on_step(index, total, latent)`: called after each denoiser call, counted from 1, with the latent that the model saw.
OnStep = Callable[[int, int, np.ndarray], None]


class Sampler(Protocol):
    """Plays a denoiser from noise to a latent."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what the build wrote; raise BundleError when it is damaged."""
        ...

    def play(self, denoise: Denoise, draw: Draw, on_step: OnStep | None = None) -> np.ndarray:
        """Return the final latent, float32 (B, C, H, W)."""
        ...

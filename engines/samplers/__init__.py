"""One kind of sampler per file. A sampler plays denoiser calls and noise into a final latent; it knows no model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

#: `denoise(latent, timestep)`: float32 (B, C, H, W) and a model time → model output of the latent's shape.
Denoise = Callable[[np.ndarray, float], np.ndarray]
#: `draw()`: the next standard normal noise, float32 (B, C, H, W).
Draw = Callable[[], np.ndarray]


class Sampler(Protocol):
    """Plays a denoiser from noise to a latent."""

    def play(self, denoise: Denoise, draw: Draw) -> np.ndarray:
        """Final latent, float32 (B, C, H, W)."""
        ...

"""What a denoiser that is steered by a picture is shown and held to: latents with noise at random times, and weighted errors."""

from __future__ import annotations

import torch
from torch.nn import functional

from tools.demo.training.unet import schedule

MOST = 20.0
"""Bound of what an error in much noise counts more than one in little."""


def noised(clean: torch.Tensor, *, much: bool = False) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents (N, 4, 8, 8) with noise, the times (N,) at which they are so, and the noise; all from torch's generator.

    With `much`, a time is drawn the more often the later it is: in little noise there is nothing left to decide.
    """
    kept, _ = schedule()
    noise, at = torch.randn_like(clean), torch.randint(len(kept), (len(clean),))
    if much:
        at = (torch.rand(len(clean)).sqrt() * len(kept)).long().clamp(max=len(kept) - 1)
    signal = kept[at].view(-1, 1, 1, 1)
    return signal.sqrt() * clean + (1 - signal).sqrt() * noise, at, noise


def error(predicted: torch.Tensor, noise: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """The mean squared error of predicted noise, weighted by min-SNR, and in much noise as one of v would be.

    Where things are is decided in much noise, where noise is easily predicted all the same.
    """
    kept, weights = schedule()
    each = functional.mse_loss(predicted, noise, reduction="none").mean((1, 2, 3))
    return (each * weights[at] * (1 / kept[at]).clamp(max=MOST)).mean()

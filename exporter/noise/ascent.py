"""Gradient ascent on initial noise, as ReNO does it: a reward, the length of noise as a regulariser, and clipped gradients.

Eyring et al., ReNO: Enhancing One-step Text-to-Image Models through Reward-based Noise Optimization, 2024.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from engines.errors import UnsupportedError
from engines.strict import Frozen

#: Noise (pictures, C, H, W) → a number each, more is better, with a gradient.
Rate = Callable[[Tensor], Tensor]
#: Told after every evaluation: how many gradients were taken before it, and the rewards (pictures,).
OnIteration = Callable[[int, np.ndarray], None]
_MOMENTUM = 0.9


class AscentOptions(Frozen):
    """How the noise is optimised; the defaults are ReNO's with CLIP's score as the reward.

    Attributes:
        iterations: gradients that are taken.
        rate: of the steps.
        weight: of the reward, beside the regulariser's.
        pull: weight of the regulariser: minus the log-likelihood of the noise's length.
        clip: longest gradient of a picture.

    """

    iterations: int = Field(default=50, ge=1)
    rate: float = Field(default=5.0, gt=0, allow_inf_nan=False)
    weight: float = Field(default=0.01, gt=0, allow_inf_nan=False)
    pull: float = Field(default=0.01, ge=0, allow_inf_nan=False)
    clip: float = Field(default=0.1, gt=0, allow_inf_nan=False)


@dataclass(frozen=True)
class Ascended:
    """What an ascent came to.

    Attributes:
        noise: of the highest reward, of all that were evaluated: float32, as it began.
        rewards: float64 (iterations + 1, pictures), from the first noise on.

    """

    noise: np.ndarray
    rewards: np.ndarray

    @property
    def best(self) -> np.ndarray:
        """Each picture's highest reward, (pictures,)."""
        return self.rewards.max(0)

    @property
    def found_at(self) -> np.ndarray:
        """How many gradients that took, (pictures,)."""
        return self.rewards.argmax(0)


def ascend(rate: Rate, start: Tensor, options: AscentOptions, on_iteration: OnIteration | None = None) -> Ascended:
    """Optimise noise, each picture's for itself.

    Args:
        rate: the reward.
        start: noise to begin with, float32 (pictures, C, H, W).
        options: how.
        on_iteration: told of the rewards.

    Raises:
        UnsupportedError: a reward or its gradient is no number, or there is no gradient.

    """
    noise = start.detach().clone().requires_grad_()
    best, highest = start.detach().clone(), torch.full((len(start),), -torch.inf, dtype=torch.float64)
    # On each element alone, so pictures that are optimised together do not know of each other.
    optimizer, rewards = torch.optim.SGD([noise], lr=options.rate, momentum=_MOMENTUM, nesterov=True), list[np.ndarray]()
    for iteration in range(options.iterations + 1):
        last = iteration == options.iterations
        with torch.set_grad_enabled(not last):
            found = rate(noise)
        if not (last or found.requires_grad):
            raise UnsupportedError("no gradient comes from the picture to the noise. Choose by generate --best-of.")
        own = found.detach().double().cpu()
        _require_numbers(own, f"after {iteration} gradients the reward")
        better = own > highest
        best[better.to(best.device)], highest = noise.detach()[better.to(best.device)], torch.maximum(own, highest)
        rewards.append(own.numpy())
        if on_iteration:
            on_iteration(iteration, rewards[-1])
        if last:
            break
        optimizer.zero_grad()
        (options.pull * _unlikeliness(noise) - options.weight * found).sum().backward()
        _clip(noise, options.clip)
        optimizer.step()
    return Ascended(best.cpu().numpy(), np.stack(rewards))


def _unlikeliness(noise: Tensor) -> Tensor:
    """Minus the log-likelihood of each picture's length, but for a constant: it follows the chi distribution."""
    count = noise[0].numel()
    length = noise.flatten(1).norm(dim=1)
    return length**2 / 2 - (count - 1) * length.log()


def _clip(noise: Tensor, most: float) -> None:
    gradient: Any = noise.grad  # there, since the regulariser has one
    _require_numbers(gradient, "a gradient")
    lengths = gradient.flatten(1).norm(dim=1).reshape(-1, *[1] * (gradient.dim() - 1))
    gradient *= (most / lengths.clamp(min=most)).to(gradient.dtype)


def _require_numbers(found: Tensor, what: str) -> None:
    if not torch.isfinite(found).all():
        raise UnsupportedError(f"{what} is NaN or infinite. Take a smaller rate, or another reward.")

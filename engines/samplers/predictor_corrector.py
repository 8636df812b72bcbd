"""Reverse SDE in equal steps of time, with Langevin corrections (score-SDE, Song et al. 2021, 2011.13456, algorithms 3 and 5).

A predictor goes from one time to the next; before it, a corrector may move each picture towards what is likely at its time.
Without corrections, `predictor=euler_maruyama` is the Euler–Maruyama solution that the adaptive one is measured against.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from engines.noise_process import CheckedDenoiser, Continuous, mixture, rms, spread
from engines.samplers import Draw, OnStep, Step

__all__ = ["PredictorCorrector"]
#: A score of nothing but zeros has no direction: it is not divided by.
_LEAST = 1e-12


class PredictorCorrector(Continuous):
    """Reverse SDE in a fixed number of steps; `steps * (1 + corrections)` evaluations a picture."""

    steps: int = Field(default=50, ge=2, le=10_000, description="times, equally apart; the last takes the rest of the noise out")
    corrections: int = Field(default=1, ge=0, le=100, description="Langevin steps at every time")
    snr: float = Field(default=0.16, gt=0, le=10, description="signal-to-noise ratio of a correction: how far it goes")
    predictor: Literal["reverse_diffusion", "euler_maruyama", "ancestral"] = Field(
        default="reverse_diffusion", description="or euler_maruyama, or ancestral: how to go to the next time"
    )

    def solve(self, model: CheckedDenoiser, draw: Draw, tell: OnStep) -> np.ndarray:
        """Return the clean latent; the state is float64 between evaluations."""
        latent = np.array(draw(), np.float64)
        everyone = np.arange(len(latent))
        clocks = model.process.clock(np.linspace(len(model.process.log_alpha_bar) - 1, 0, self.steps))
        for clock, after in zip(clocks, [*clocks[1:], clocks[-1]], strict=True):
            model.step += 1
            now, step = np.full(len(latent), clock), float(clock - after)
            signal, noise = mixture(now[:1], latent.ndim)
            for _ in range(self.corrections):
                latent = self._corrected(latent, -model.noise(latent, now, everyone) / noise, step, draw())
            seen, predicted = latent, model.noise(latent, now, everyone)
            clean = (latent - noise * predicted) / signal
            latent = clean if model.step == self.steps else self._predicted(latent, -predicted / noise, step, draw())
            tell(Step(model.step, self.steps, seen.astype(np.float32), clean.astype(np.float32)))
        return latent

    def _predicted(self, latent: np.ndarray, score: np.ndarray, step: float, noise: np.ndarray) -> np.ndarray:
        beta = -np.expm1(-step)  # of one link of the chain: 1 - alpha-bar / alpha-bar of the next time
        match self.predictor:
            case "euler_maruyama":
                return latent + step * (latent / 2 + score) + np.sqrt(step) * noise
            case "reverse_diffusion":
                return (2 - np.sqrt(1 - beta)) * latent + beta * score + np.sqrt(beta) * noise
            case "ancestral":
                return (latent + beta * score) / np.sqrt(1 - beta) + np.sqrt(beta) * noise

    def _corrected(self, latent: np.ndarray, score: np.ndarray, step: float, noise: np.ndarray) -> np.ndarray:
        """One Langevin step, as long as noise and score of this picture are in proportion; the paper takes the batch's mean."""
        share = self.snr * rms(noise) / np.maximum(rms(score), _LEAST)
        size = spread(2 * np.exp(-step) * share**2, latent.ndim)
        return latent + size * score + np.sqrt(2 * size) * noise

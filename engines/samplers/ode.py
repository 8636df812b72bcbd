"""Probability-flow ODE by an embedded Runge–Kutta pair: every picture takes its own steps.

For q = latent / noise over r = signal / noise, the flow of a variance-preserving diffusion is dq/dr = what the model holds for
the clean latent (Song et al. 2021, 2010.02502, equation 14, in terms of the clean latent). Where that stands still, a step of any
length is exact. The error is one in the clean latent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from engines.noise_process import CheckedDenoiser, Continuous, endless, rms, spread
from engines.samplers import Draw, OnStep, Step

__all__ = ["Ode"]


@dataclass(frozen=True)
class RungeKuttaPair:
    """An explicit Runge–Kutta pair whose last stage is the next step's first.

    Attributes:
        c: times of the stages, shares of the step.
        a: row per stage after the first: weights of the stages before it.
        b: weights of the result.
        e: weights of the error; one more, of the next step's first stage.
        order: of the error's estimate, plus 1.

    """

    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    e: tuple[float, ...]
    order: int


#: Bogacki & Shampine 1989, and Dormand & Prince 1980; the coefficients of scipy.integrate.RK23 and RK45, held equal by a test.
PAIRS = {
    "bogacki_shampine": RungeKuttaPair(
        c=(0, 1 / 2, 3 / 4),
        a=((1 / 2,), (0, 3 / 4)),
        b=(2 / 9, 1 / 3, 4 / 9),
        e=(5 / 72, -1 / 12, -1 / 9, 1 / 8),
        order=3,
    ),
    "dormand_prince": RungeKuttaPair(
        c=(0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1),
        a=(
            (1 / 5,),
            (3 / 40, 9 / 40),
            (44 / 45, -56 / 15, 32 / 9),
            (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
            (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        ),
        b=(35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
        e=(-71 / 57600, 0, 71 / 16695, -71 / 1920, 17253 / 339200, -22 / 525, 1 / 40),
        order=5,
    ),
}
#: The first step tried, as a share of the whole way in log(signal / noise).
_FIRST = 0.05
#: Safety factor of the next step's length, and bounds on its growth: over longer ones the clean latent turns unseen.
_SAFETY, _SHRINK, _GROW = 0.9, 0.2, 2.0
#: Errors below this share of what is allowed lengthen the next step no further; a way this little short of the end is at the end.
_LEAST = _ROUNDING = 1e-9


class Ode(Continuous):
    """Probability-flow ODE with steps as long as the error allows; the first noise decides the picture."""

    relative: float = Field(default=0.003, gt=0, le=10, description="error allowed in a step, as a share of the clean latent")
    absolute: float = Field(default=0.003, gt=0, le=10, description="error allowed where the clean latent is small, in its units")
    pair: Literal["bogacki_shampine", "dormand_prince"] = Field(
        default="bogacki_shampine", description="3(2), 3 evaluations a step; or dormand_prince, 5(4), 6 evaluations"
    )
    max_steps: int = Field(default=2000, ge=1, le=10**6, description="trials per picture, after which it is an error")

    def solve(self, model: CheckedDenoiser, draw: Draw, tell: OnStep) -> np.ndarray:
        """Return the clean latent; the state is float64 between evaluations."""
        pair, noise = PAIRS[self.pair], np.array(draw(), np.float64)
        axes, start, end = noise.ndim, _ratio(model.process.noisy), _ratio(model.process.clean)
        ratio, state = np.full(len(noise), start), noise * math.sqrt(1 + start**2)
        model.step = 1
        slope, rejected = _slope(model, state, ratio, np.arange(len(noise))), np.zeros(len(noise), int)
        length = np.full(len(noise), _FIRST * math.log(end / start))  # of the next step: how much log(ratio) grows
        while (active := np.flatnonzero(ratio < end)).size:
            if model.step > self.max_steps:
                raise endless(self.max_steps, rejected, np.log(ratio / start) / math.log(end / start), active)
            here = ratio[active]
            way = np.minimum(here * np.expm1(length[active]), end - here)
            arrival = np.where(way >= (end - here) * (1 - _ROUNDING), end, here + way)
            wide, stages = spread(way, axes), [slope[active]]
            for row, share in zip(pair.a, pair.c[1:], strict=True):
                between = np.where(share == 1, arrival, here + share * way)
                stages.append(_slope(model, state[active] + wide * _sum(row, stages), between, active))
            result = state[active] + wide * _sum(pair.b, stages)
            stages.append(_slope(model, result, arrival, active))
            allowed = self.absolute + self.relative * np.maximum(np.abs(stages[0]), np.abs(stages[-1]))
            error = rms(wide / spread(arrival, axes) * _sum(pair.e, stages) / allowed)
            good = error <= 1
            kept = active[good]
            state[kept], ratio[kept], slope[kept] = result[good], arrival[good], stages[-1][good]
            rejected[active] += ~good
            longer = _SAFETY * np.maximum(error, _LEAST) ** (-1 / pair.order)
            length[active] = np.log1p(way / here) * np.clip(longer, _SHRINK, _GROW)
            tell(Step(model.step, None, _latent(state, ratio).astype(np.float32), slope.astype(np.float32)))
            model.step += 1
        return slope


def _ratio(clock: float) -> float:
    """Signal over noise."""
    return 1 / math.sqrt(math.expm1(clock))


def _latent(state: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """The latent that the model sees."""
    return state / np.sqrt(1 + spread(ratio, state.ndim) ** 2)


def _slope(model: CheckedDenoiser, state: np.ndarray, ratio: np.ndarray, which: np.ndarray) -> np.ndarray:
    return model.clean(_latent(state, ratio), np.log1p(ratio**-2), which)


def _sum(weights: tuple[float, ...], stages: list[np.ndarray]) -> np.ndarray:
    terms = [weight * stage for weight, stage in zip(weights, stages, strict=True) if weight]
    return np.sum(terms, axis=0)

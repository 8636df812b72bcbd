"""Error-controlled reverse SDE: every picture takes its own steps ('Gotta Go Fast', Jolicoeur-Martineau et al. 2021, 2105.14080).

A step is tried by Euler–Maruyama, and again by the same noise with the drift at its end; the error is judged by their difference.
Where it is small enough a mean of both is kept. Three things differ from the paper
(docs/decisions/0013-adaptive-samplers.md):

- It steps latents in training time, where drift and noise are stiff near the end. Here the same process is written for
  q = latent / signal · snr on the clock snr = signal² / noise², where it is dq = clean d(snr) + dw: what the model holds for the
  clean latent is the drift, and the noise has one rate. A step of Euler–Maruyama is then one of ancestral sampling.
- The error is one in the clean latent, not in the noisy one, and relative to it now and before.
- It draws new noise after a rejected step, which prefers calm noise and bends the distribution. Here what was drawn is kept
  and divided (a Brownian bridge).
"""

from __future__ import annotations

import math

import numpy as np
from pydantic import Field

from engines.noise_process import CheckedDenoiser, Continuous, endless, rms, spread
from engines.samplers import Draw, OnStep, Step

__all__ = ["Adaptive"]
#: Safety factor and exponent of the next step's length, and a bound on how much longer it may be than the one before. The
#: exponent is the paper's; its factor of 0.9 has more steps rejected than it saves.
_SAFETY, _EXPONENT, _GROW = 0.8, 0.9, 5.0
#: The first step tried, as a share of the clock's range.
_FIRST = 0.1
#: A stretch this little longer than a step, as a share, is as long as the step.
_ROUNDING = 1e-6
#: Errors below this share of what is allowed lengthen the next step no further.
_LEAST = 1e-6


class _Path:
    """The Brownian path of one picture: drawn as far as some step has tried to go."""

    def __init__(self) -> None:
        self._ahead: list[tuple[float, np.ndarray]] = []  # lengths and increments of the drawn stretches, the next one last

    def fit(self, start: float, length: float) -> float:
        """How far to step from the snr `start` to go at most `length` in log(snr): a drawn stretch is divided evenly."""
        if not self._ahead:
            return start * math.expm1(length)
        stretch = self._ahead[-1][0]
        whole = math.log1p(stretch / start)
        parts = math.ceil(whole / length - _ROUNDING)
        return stretch if parts <= 1 else start * math.expm1(whole / parts)

    def increment(self, step: float, noise: np.ndarray) -> np.ndarray:
        """Of the next `step`, as `fit` gave it; `noise` is standard normal and fresh."""
        if not self._ahead:
            self._ahead.append((step, math.sqrt(step) * noise))
        length, whole = self._ahead[-1]
        if step < length:
            bridge = math.sqrt(step * (length - step) / length)
            part = step / length * whole + bridge * noise
            self._ahead[-1:] = [(length - step, whole - part), (step, part)]
        return self._ahead[-1][1]

    def pass_by(self) -> None:
        """Leave the last step's increment behind: it was taken."""
        self._ahead.pop()


class Adaptive(Continuous):
    """Reverse SDE with steps as long as the error allows; two evaluations a step, one for a rejected one."""

    relative: float = Field(default=0.1, gt=0, le=10, description="error allowed in a step, as a share of the clean latent")
    absolute: float = Field(default=0.1, gt=0, le=10, description="error allowed where the clean latent is small, in its units")
    max_steps: int = Field(default=2000, ge=1, le=10**6, description="trials per picture, after which it is an error")

    def solve(self, model: CheckedDenoiser, draw: Draw, tell: OnStep) -> np.ndarray:
        """Return the clean latent; the state is float64 between evaluations."""
        noise = np.array(draw(), np.float64)
        axes, everyone, start, end = noise.ndim, np.arange(len(noise)), _snr(model.process.noisy), _snr(model.process.clean)
        snr = np.full(len(noise), start)
        length = np.full(len(noise), _FIRST * math.log(end / start))  # of the next step: how much log(snr) grows
        state, drift = noise * math.sqrt(start * (1 + start)), np.empty_like(noise)
        paths, stale = [_Path() for _ in noise], np.ones(len(noise), bool)
        rejected = np.zeros(len(noise), int)
        while (active := np.flatnonzero(snr < end)).size:
            if model.step == self.max_steps:
                raise endless(model.step, rejected, np.log(snr / start) / math.log(end / start), active)
            model.step += 1
            fresh = active[stale[active]]  # a rejected step starts where the drift is known
            if fresh.size:
                drift[fresh] = _drift(model, state[fresh], snr[fresh], fresh)
            here, random = snr[active], draw()
            step = np.array([min(paths[i].fit(snr[i], length[i]), end - snr[i]) for i in active])
            arrival = np.where(step >= (end - here) * (1 - _ROUNDING), end, here + step)
            moved = state[active] + [paths[i].increment(size, random[i]) for i, size in zip(active, step, strict=True)]
            wide, first = spread(step, axes), drift[active]
            second = _drift(model, moved + wide * first, arrival, active)
            # The weight of the end where the drift follows the noise as it does in a Gaussian; for short steps the paper's half.
            late = arrival / step * (1 - here / step * np.log1p(step / here))
            change = spread(late, axes) * (second - first)
            allowed = np.maximum(self.absolute, self.relative * np.maximum(np.abs(first), np.abs(second)))
            error = rms(wide / spread(arrival, axes) * change / allowed)
            good = error <= 1
            kept = active[good]
            state[kept], snr[kept] = (moved + wide * (first + change))[good], arrival[good]
            for index in map(int, kept):
                paths[index].pass_by()
            stale[active], rejected[active] = good, rejected[active] + ~good
            taken = np.log1p(step / here)
            after = taken * _SAFETY * np.minimum(np.maximum(error, _LEAST) ** -_EXPONENT, _GROW)
            # A step that a drawn stretch cut short says little about how long a free one may be.
            cut = np.minimum(after, np.maximum(length[active], 2 * taken))
            length[active] = np.where(taken < length[active], cut, after)
            tell(Step(model.step, None, _latent(state, snr).astype(np.float32), drift.astype(np.float32)))
        model.step += 1
        return _drift(model, state, snr, everyone)


def _snr(clock: float) -> float:
    return 1 / math.expm1(clock)


def _latent(state: np.ndarray, snr: np.ndarray) -> np.ndarray:
    """The latent that the model sees."""
    return state / spread(np.sqrt(snr * (1 + snr)), state.ndim)


def _drift(model: CheckedDenoiser, state: np.ndarray, snr: np.ndarray, which: np.ndarray) -> np.ndarray:
    return model.clean(_latent(state, snr), np.log1p(1 / snr), which)

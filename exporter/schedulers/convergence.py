"""The order of a sampler, measured: how its error falls with the number of steps on a problem whose solution is known.

Data are normal, so the best denoiser is a formula, and the path of the probability-flow ODE through any noise is one too
(Song et al., arXiv 2011.13456). Errors are taken at the model's inputs, where there is still noise: the last step lands at zero
noise on every grid, and its own error hides the order of those before.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engines.samplers.table import Draw, Eval, Table
from exporter.schedulers.compile_sampler import Row, configure, survey
from exporter.schedulers.trace import trace

#: Numbers of steps: below, errors are not yet small; above, float32 coefficients show.
STEPS = (20, 40, 80)
#: Mean and standard deviation of the data.
_MEAN, _DEVIATION = 0.5, 1.0
#: Least ratio of noise to data at which errors count.
_NOISE = 0.3
#: Several initial noises at once.
_NOISES = (-1.0, 0.3, 2.0)


@functools.cache
def surveyed() -> tuple[tuple[Row, float | None], ...]:
    """Every scheduler of diffusers, and the order of those that compile; once per process, in some fifteen seconds."""
    return tuple((row, None if row.reason else order(row.scheduler, row.config)) for row in survey())


def order(scheduler: str, config: Mapping[str, Any]) -> float | None:
    """Slope of log error over log steps, between the first and the last of `STEPS`.

    Returns:
        The slope, or None where there is none: the sampler draws noise, runs from pictures to noise, or does not say what its
        model's output means.

    """
    found = []
    for steps in STEPS:
        made = configure(scheduler, config, steps, 1024, 1024)
        if (error := worst(trace(made.make, made.loop, made.provenance))) is None:
            return None
        found.append(error)
    return math.log(found[0] / found[-1]) / math.log(STEPS[-1] / STEPS[0])


def worst(table: Table) -> float | None:
    """Largest distance of a model input from the exact path, in standard deviations; None as for `order`."""
    history, error, path, before = list[np.ndarray](), 0.0, None, math.inf
    if any(isinstance(op, Draw) for op in table.ops[1:]):
        return None
    for op in table.ops:
        if isinstance(op, Draw):
            history.append(np.array(_NOISES))
        elif isinstance(op, Eval):
            if op.preview is None or op.preview[1] == 0:
                return None
            signal, noise = levels(op.preview)
            if noise > 2 * before * signal:  # a second stage goes back a little; the way from a picture to noise goes far
                return None
            before = noise / signal if signal else math.inf
            latent = _mixed(op.row, history)
            spread = math.hypot(signal * _DEVIATION, noise)
            path = (latent - signal * _MEAN) / spread if path is None else path
            if noise > _NOISE * signal:
                error = max(error, float(np.abs((latent - signal * _MEAN) / spread - path).max()))
            clean = _MEAN + signal * _DEVIATION**2 / spread**2 * (latent - signal * _MEAN)
            history.append((clean - op.preview[0] * latent) / op.preview[1])
    return error


def levels(preview: tuple[float, float]) -> tuple[float, float]:
    """Signal and noise in a model's input, from how much of the input and of the output make the clean latent.

    The three ways in which schedulers of diffusers do so at their defaults: noise, velocity of a straight path, and EDM's
    preconditioning (Karras et al., arXiv 2206.00364) with its standard deviation of the data, 0.5.
    """
    of_input, of_output = preview
    if of_output > 0:
        noise = math.sqrt(0.25 * of_output**2 / (0.25 - of_output**2))
        scale = 1 / math.sqrt(noise**2 + 0.25)
        return scale, scale * noise
    if of_input == 1:
        return 1 + of_output, -of_output
    return 1 / of_input, -of_output / of_input


def _mixed(row: Sequence[float], history: Sequence[np.ndarray]) -> np.ndarray:
    return sum((share * latent for share, latent in zip(row, history, strict=False)), np.zeros(len(_NOISES)))

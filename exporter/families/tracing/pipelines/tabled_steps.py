"""Würstchen's scheduler in a first stage: its steps as numbers, since it looks each of its times up, which no graph can.

Its times are shares of the noise's way, and what a step makes of latent, answer and noise depends on nothing else: it is read off
the scheduler before the first step, once for each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import DDPMWuerstchenScheduler
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from engines.errors import UnsupportedError
from exporter.families.tracing.following.standins import stand_in

#: How far a step may be from its three numbers, as a share of what it makes.
_TOLERANCE = 1e-5


class Share(float):
    """A time that a pipeline hands its network, one for each picture."""

    def expand(self, count: Any) -> Tensor:  # noqa: ANN401 - an open length
        """That many of it."""
        return torch.full((count,), float(self))


def looked_up(real: Any) -> bool:  # noqa: ANN401 - a scheduler of diffusers
    """Whether it looks times up by what it is told."""
    return isinstance(real, DDPMWuerstchenScheduler)


def tabled(real: Any, apart: Callable[[], Any]) -> Any:  # noqa: ANN401 - a scheduler, and what keeps a graph from following
    """The same scheduler with a table of its steps; `apart` is entered while that is read off."""

    def set_timesteps(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        with apart():
            real.set_timesteps(*args, **kwargs)
            rows = [_row(real, time) for time in real.timesteps[:-1]]
            times = [Share(time) for time in real.timesteps.tolist()]
        vars(self).update(timesteps=times, rows=iter(rows))

    def step(
        self: Any,  # noqa: ANN401
        model_output: Tensor,
        timestep: Any,  # noqa: ANN401, ARG001 - they are taken in order
        sample: Tensor,
        generator: Any = None,  # noqa: ANN401
        return_dict: bool = True,  # noqa: FBT001, FBT002 - diffusers' own signature
    ) -> Any:  # noqa: ANN401
        kept, answered, drawn = next(self.rows)
        noise = randn_tensor(sample.shape, generator=generator, device=sample.device, dtype=sample.dtype)
        found = BaseOutput(prev_sample=kept * sample + answered * model_output + drawn * noise)
        return found if return_dict else found.to_tuple()

    return stand_in(real, set_timesteps=set_timesteps, step=step)


def _row(real: Any, time: Tensor) -> tuple[float, float, float]:  # noqa: ANN401
    """How much of the latent, the answer and the noise a step at that time makes the next latent of."""
    noise = float(torch.randn(1, generator=torch.Generator().manual_seed(0), dtype=torch.float64))

    def made(latent: float, answer: float) -> float:
        given = (torch.full((1, 1, 1, 1), each, dtype=torch.float64) for each in (answer, latent))
        output, sample = given
        return float(real.step(output, time[None], sample, generator=torch.Generator().manual_seed(0)).prev_sample)

    alone = made(0.0, 0.0)
    row = made(1.0, 0.0) - alone, made(0.0, 1.0) - alone, alone / noise
    wanted, found = made(0.3, -0.7), 0.3 * row[0] - 0.7 * row[1] + alone
    if abs(found - wanted) > _TOLERANCE * (abs(row[0]) + abs(row[1]) + abs(alone)):
        raise UnsupportedError(f"{type(real).__name__} makes no sum of latent, answer and noise at time {float(time):g}.")
    return row

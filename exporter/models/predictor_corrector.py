"""Schedulers of diffusers that predict and correct by two methods, under the one `step` by which pipelines' loops drive others.

A correction is a Langevin step (score-SDE, Song et al. 2021, 2011.13456, algorithm 4): as long as noise and the model's answer
are in proportion. That proportion is each picture's own here; diffusers takes the mean of a batch, which is the same of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import torch
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor


@dataclass
class SdeStep(BaseOutput):
    """What one evaluation led to: the next latent, and the clean one that it points to; of the end both are without noise.

    `prev_sample_mean` is the next one too, which diffusers' pipeline takes at the end.
    """

    prev_sample: Tensor
    pred_original_sample: Tensor | None = None
    prev_sample_mean: Tensor | None = None


def divided(kind: Any) -> bool:  # noqa: ANN401 - a class of diffusers' schedulers, or one
    """Whether it predicts and corrects by two methods, and has no `step`."""
    return not hasattr(kind, "step") and all(hasattr(kind, name) for name in ("step_pred", "step_correct", "set_sigmas"))


def of_scores(kind: Any) -> bool:  # noqa: ANN401 - a class of schedulers
    """Whether it is such a class under one `step`: its network gives the gradient of log density."""
    return hasattr(kind, "as_diffusers")


def corrects(scheduler: Any) -> bool:  # noqa: ANN401
    """Whether a scheduler of such a class corrects, so that it does to one picture what depends on others of its batch."""
    return of_scores(type(scheduler)) and scheduler.config.correct_steps > 0


def scaled(value: Tensor, over: Tensor, under: Tensor, power: int) -> Tensor:
    """A latent times (‖over‖ / ‖under‖) to the power, of each picture (B, …)."""
    ratio = over.flatten(1).norm(dim=1) / under.flatten(1).norm(dim=1)
    return value * (ratio**power).reshape(-1, *[1] * (value.ndim - 1))


class _OneStep:
    """What stands before diffusers' class: `timesteps` are what the model is told at each evaluation."""

    ratio_scaled = staticmethod(scaled)
    as_diffusers: Any
    config: Any
    sigmas: Any
    timesteps: Any

    def set_timesteps(self, num_inference_steps: int, sampling_eps: float | None = None, device: Any = None) -> None:  # noqa: ANN401
        """List, for every evaluation, the noise level that the model is told."""
        real: Any = super()
        real.set_timesteps(num_inference_steps, sampling_eps, device)
        real.set_sigmas(num_inference_steps, sampling_eps=sampling_eps)
        self.clock, self.taken = self.timesteps, 0
        self.timesteps = self.sigmas.repeat_interleave(self.config.correct_steps + 1)

    def set_sigmas(self, num_inference_steps: int, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """As pipelines call it that know the two methods, and loop over the scheduler's own times."""
        if self.timesteps is None:
            self.set_timesteps(num_inference_steps)
        self.timesteps, real = self.clock, super()
        cast("Any", real).set_sigmas(num_inference_steps, *args, **kwargs)

    def step(
        self,
        model_output: Tensor,
        timestep: Any,  # noqa: ANN401, ARG002 - where it is, it counts itself
        sample: Tensor,
        generator: torch.Generator | None = None,
        return_dict: bool = True,  # noqa: FBT001, FBT002 - diffusers' own signature
    ) -> Any:  # noqa: ANN401
        """Correct, or after all corrections of a time predict; the last prediction is without noise."""
        index, place = divmod(self.taken, self.config.correct_steps + 1)
        self.taken += 1
        if place < self.config.correct_steps:
            found = self._corrected(model_output, sample, generator)
        else:
            told, self.timesteps, real = self.timesteps, self.clock, super()
            result = cast("Any", real).step_pred(model_output, self.clock[index], sample, generator=generator)
            self.timesteps = told
            found = result.prev_sample_mean if index + 1 == len(self.clock) else result.prev_sample
        clean = sample + self.sigmas[index] ** 2 * model_output
        made = SdeStep(prev_sample=found, pred_original_sample=clean, prev_sample_mean=found)
        return made if return_dict else (found,)

    def _corrected(self, answer: Tensor, sample: Tensor, generator: torch.Generator | None) -> Tensor:
        noise = randn_tensor(sample.shape, generator=generator, device=sample.device, dtype=sample.dtype)
        # A step of 2 (snr ‖noise‖ / ‖answer‖)², and the square root of twice that of noise.
        far = self.ratio_scaled(2 * self.config.snr**2 * answer, noise, answer, 2)
        return sample + far + self.ratio_scaled(2 * self.config.snr * noise, noise, answer, 1)

    def step_correct(self, model_output: Tensor, sample: Tensor, **options: Any) -> Any:  # noqa: ANN401
        """As pipelines call it that know the two methods."""
        return self.step(model_output, self._told, sample, **options)

    def step_pred(self, model_output: Tensor, _timestep: Any, sample: Tensor, **options: Any) -> Any:  # noqa: ANN401
        """As pipelines call it that know the two methods."""
        return self.step(model_output, self._told, sample, **options)

    @property
    def _told(self) -> Any:  # noqa: ANN401
        return self.sigmas[self.taken // (self.config.correct_steps + 1)]


@cache
def stepped(kind: Any) -> Any:  # noqa: ANN401
    """The class with a `step`, through which goes what a pipeline calls that knows the two methods; others as they are."""
    if not divided(kind):
        return kind
    return type(kind.__name__, (_OneStep, kind), {"as_diffusers": kind, "__module__": kind.__module__, "__doc__": kind.__doc__})

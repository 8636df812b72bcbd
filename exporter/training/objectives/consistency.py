"""Latent consistency distillation's loss, after train_lcm_distill_sdxl_wds.py of diffusers' examples."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from engines.errors import UnsupportedError
from exporter.part import Part
from exporter.training.batches import BatchSampler
from exporter.training.context import LATENTS, TrainingContext
from exporter.training.memory import own
from exporter.training.noise_schedule import Schedule, guided

#: LCMScheduler's: deviation of the data, and by what its times are multiplied.
_SIGMA, _SCALING = 0.5, 10.0


def steered(options: Any, student: Part) -> Part:  # noqa: ANN401 - the plugin, which no helper imports
    """The student with an input for guidance, where it shall have one; at first it has no effect."""
    if not options.embeds:
        return student
    old = student.network
    network = type(old).from_config(options.config(old.config))
    lacking, _ = network.load_state_dict(old.state_dict(), strict=False)
    if lacking != ["time_embedding.cond_proj.weight"]:
        raise UnsupportedError(f"{options.verb}: {type(old).__name__} has no input for guidance that could begin without effect.")
    nn.init.zeros_(network.time_embedding.cond_proj.weight)
    student = student.replacing(network.eval())
    # Its wrapper takes the scale too.
    student.module.embedded = True  # pyright: ignore[reportArgumentType] - torch types what a module holds as tensors and modules
    return student


class ConsistencyObjective:
    """Huber's distance between the picture that the student says at one time and an average of it at the time before.

    Attributes:
        kept: that average.

    """

    def __init__(self, options: Any, student: Part, lesson: TrainingContext) -> None:  # noqa: ANN401 - the plugin, which no helper imports
        self._options, self._teacher = options, lesson.teacher.module
        self._schedule, self._draws = Schedule(lesson.schedule, options.verb), BatchSampler(options, lesson, LATENTS)
        self._average = copy.deepcopy(student.module).requires_grad_(requires_grad=False).eval()
        self.kept: Sequence[Any] = (self._average,)
        self.frozen = sum(value.numel() for each in (self._teacher, self._average) for value in each.parameters())
        self.metadata = {"guidance": options.guidance}
        # As LCMScheduler counts them: (1 … steps) · T // steps - 1.
        every = self._schedule.count // options.solver_steps
        self._times = torch.arange(1, options.solver_steps + 1) * every - 1
        self._every = every

    def settle(self, device: torch.device, dtype: torch.dtype) -> None:
        """Bring teacher, average and data there; the average stays float32, or small changes would not move it."""
        self._teacher = own(self._teacher).to(device, dtype).eval()
        own(self._average).to(device)
        self._followers: list[Tensor] = list(self._average.parameters())
        self._schedule.settle(device)
        self._draws.settle(device)
        self._times = self._times.to(device)
        self._empty = self._draws.empty()

    def draw(self, share: int) -> tuple[Tensor, ...]:
        """Noisy latents, times, scales of guidance, and conditioning."""
        clean, noise, generator, states = self._draws.pictures(share)
        count, device = len(clean), clean.device
        times = self._times[torch.randint(len(self._times), (count,), generator=generator, device=device)]
        scale = self._options.guidance
        least, most = scale if isinstance(scale, tuple) else (scale, scale)
        scales = least + (most - least) * torch.rand(count, generator=generator, device=device)
        return self._schedule.noisy(clean, noise, times), times, scales, *states

    def __call__(self, model: nn.Module, latent: Tensor, times: Tensor, scales: Tensor, *states: Tensor) -> dict[str, Tensor]:
        """The loss of one pass."""
        schedule = self._schedule
        before = (times - self._every).clamp(min=0)
        said = self._picture(model, latent, times, states, scales)
        with torch.no_grad():
            answer = guided(self._teacher, latent, times, states, self._empty, scales)
            earlier = schedule.step(schedule.prediction, latent, answer, times, before)
            wanted = self._picture(self._average, earlier, before, states, scales)
        huber = self._options.huber
        return {"loss": (((said - wanted) ** 2 + huber**2).sqrt() - huber).mean()}

    def _picture(self, model: nn.Module, latent: Tensor, times: Tensor, states: Sequence[Tensor], scales: Tensor) -> Tensor:
        more = (scales,) if self._options.embeds else ()
        said = model(latent, times.float(), *states, *more).float()
        clean, _ = self._schedule.split(self._schedule.prediction, latent, said, times)
        scaled = (_SCALING * times.float()).reshape(-1, 1, 1, 1)
        skip, out = _SIGMA**2 / (scaled**2 + _SIGMA**2), scaled / (scaled**2 + _SIGMA**2).sqrt()
        return skip * latent + out * clean

    def stepped(self, parameters: Sequence[nn.Parameter]) -> None:
        """The average follows the student."""
        with torch.no_grad():
            torch._foreach_lerp_(self._followers, [value.detach() for value in parameters], 1 - self._options.target)

    def end(self) -> None:
        """Nothing was changed."""

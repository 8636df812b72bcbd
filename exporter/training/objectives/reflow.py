"""Loss of a student whose noise belongs to its picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from exporter.training.noise_schedule import Schedule
from exporter.training.teacher_rollouts import TeacherRollouts

if TYPE_CHECKING:
    from exporter.training.context import TrainingContext


class ReflowObjective:
    """Squared error of what the student says between a picture and the noise that it came from."""

    kept: Sequence[Any] = ()
    frozen = 0

    def __init__(self, options: Any, lesson: TrainingContext) -> None:  # noqa: ANN401 - the plugin, which no helper imports
        self._schedule, self._paths = Schedule(lesson.schedule, options.verb), TeacherRollouts(options, lesson)
        self._said = options.prediction or self._schedule.prediction
        self.metadata = {"prediction": self._said}

    def settle(self, device: torch.device, dtype: torch.dtype) -> None:  # noqa: ARG002 - the protocol's
        """Bring the data there."""
        self._schedule.settle(device)
        self._paths.settle(device)

    def draw(self, share: int) -> tuple[Tensor, ...]:
        """Pairs (N, 2, C, H, W) of the start and the end of trajectories, times, and conditioning."""
        paths, rng, states = self._paths.take(share)
        times = torch.from_numpy(rng.integers(self._schedule.count, size=len(paths)))
        return paths, times.to(paths.device, non_blocking=True), *states

    def __call__(self, model: nn.Module, paths: Tensor, times: Tensor, *states: Tensor) -> dict[str, Tensor]:
        """The loss of one pass."""
        schedule = self._schedule
        # A trajectory starts at noise as loud as it is at the first time.
        noise = paths[:, 0] / schedule.level(torch.full_like(times[:1], schedule.count - 1))[1]
        clean = paths[:, -1]
        (a, s), latent = schedule.level(times), schedule.noisy(clean, noise, times)
        target = {"epsilon": noise, "v_prediction": a * noise - s * clean, "sample": clean}[self._said]
        return {"loss": F.mse_loss(model(latent, times.float(), *states).float(), target)}

    def stepped(self, parameters: Sequence[nn.Parameter]) -> None:
        """Nothing follows the student."""

    def end(self) -> None:
        """Nothing was changed."""

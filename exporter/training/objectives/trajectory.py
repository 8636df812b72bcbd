"""Losses of a student that goes in one step where its teacher went in several."""

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


class TrajectoryObjective:
    """Squared errors of single steps along the teacher's trajectories, and of the end of the student's own."""

    kept: Sequence[Any] = ()
    frozen = 0

    def __init__(self, options: Any, lesson: TrainingContext) -> None:  # noqa: ANN401 - the plugin, which no helper imports
        self._options, self._schedule = options, Schedule(lesson.schedule, options.verb)
        self._paths = TeacherRollouts(options, lesson)
        self._said = options.prediction or self._schedule.prediction
        self._stops = torch.tensor((0, *options.stops))
        self._grid = self._schedule.grid(options.teacher_steps)[self._stops]
        self.metadata = {"prediction": self._said, "times": self._grid[:-1].tolist()}

    def settle(self, device: torch.device, dtype: torch.dtype) -> None:  # noqa: ARG002 - the protocol's
        """Bring the data there."""
        self._schedule.settle(device)
        self._paths.settle(device)
        self._grid = self._grid.to(device)

    def draw(self, share: int) -> tuple[Tensor, ...]:
        """Whole trajectories (N, steps + 1, C, H, W), which step of each, and conditioning."""
        paths, rng, states = self._paths.take(share)
        index = torch.from_numpy(rng.integers(self._options.to, size=len(paths)))
        return paths, index.to(paths.device, non_blocking=True), *states

    def __call__(self, model: nn.Module, paths: Tensor, index: Tensor, *states: Tensor) -> dict[str, Tensor]:
        """The losses of one pass."""
        weights, found = self._options.weights, dict[str, Tensor]()
        total = paths.new_zeros(())
        if weights.step:
            found["step"] = self._step(model, paths, index, states)
            total = total + weights.step * found["step"]
        if weights.end:
            found["end"] = self._end(model, paths, states)
            total = total + weights.end * found["end"]
        return {"loss": total, **found}

    def _step(self, model: nn.Module, paths: Tensor, index: Tensor, states: Sequence[Tensor]) -> Tensor:
        schedule, every = self._schedule, torch.arange(len(paths), device=paths.device)
        latent, arrived = paths[every, index], paths[every, index + 1]
        now, then = self._grid[index], self._grid[index + 1]
        aim, _ = schedule.aim(latent, arrived, now, then)
        clean, _ = schedule.split(self._said, latent, model(latent, now.float(), *states).float(), now)
        return (schedule.weight(self._options.weighting, now) * (clean - aim) ** 2).mean()

    def _end(self, model: nn.Module, paths: Tensor, states: Sequence[Tensor]) -> Tensor:
        latent = paths[:, 0]
        for now, then in zip(self._grid[:-1], self._grid[1:], strict=True):
            times = now.expand(len(latent))
            said = model(latent, times.float(), *states).float()
            latent = self._schedule.step(self._said, latent, said, times, then.expand(len(latent)))
        return F.mse_loss(latent, paths[:, -1])

    def stepped(self, parameters: Sequence[nn.Parameter]) -> None:
        """Nothing follows the student."""

    def end(self) -> None:
        """Nothing was changed."""

"""Rounds of progressive distillation, and their loss."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from exporter.part import Part
from exporter.training.batches import BatchSampler
from exporter.training.context import LATENTS, TrainingContext
from exporter.training.memory import own
from exporter.training.noise_schedule import Schedule, guided
from exporter.training.objectives.classifier_features import ClassifierFeatureLoss
from exporter.training.trainer import CURVE, teach

_DONE = "network"


def rounds(options: Any, student: Part, lesson: TrainingContext) -> Part:  # noqa: ANN401 - the plugin, which no helper imports
    """Train one round after the other; a round that is finished is kept, and not trained again."""
    teacher, said = lesson.teacher.module, ""
    told: list[dict[str, Any]] = []
    curve: list[str] = []
    first = not int(os.environ.get("RANK", "0"))  # of several processes
    for number, (before, after) in enumerate(pairwise(options.grid)):
        kept = lesson.kept / f"round-{number + 1}"
        kept.mkdir(exist_ok=True)
        given = replace(lesson, kept=kept)
        guidance = options.guidance if number == 0 else None
        sees = options.classifier is not None and number >= len(options.grid) - 1 - options.classifier.rounds
        losses = ProgressiveObjective(options, given, teacher, said, (before, after), guidance, sees=sees)
        if (kept / _DONE).is_dir():
            student = student.replacing(type(student.network).from_pretrained(kept / _DONE))
            found = json.loads((kept / "metadata.json").read_text())
        else:
            lesson.say(f"{student.name}, {options.verb}: round {number + 1}, {before} → {after} steps")
            student = teach(options, student, given, losses)
            found = dict(student.metadata)[options.verb]
            if first:
                _keep(student, kept, found)
        told.append({"from": before, "to": after, **found})
        teacher, said = copy.deepcopy(student.module), losses.said
        if first:
            rows = (kept / CURVE).read_text().splitlines()
            curve += [json.dumps({"round": number + 1, **json.loads(row)}) + "\n" for row in rows]
            (lesson.kept / CURVE).write_text("".join(curve))
    last = told[-1]["last"]
    note = f"{student.name}: {options.summary}, mean loss of the last {last['steps']} steps {last['loss']:.3g}"
    return replace(student, notes=(note,), metadata=((options.verb, {"rounds": told}),))


def _keep(student: Part, folder: Path, found: Mapping[str, Any]) -> None:
    """Keep a round's network, which appears whole under its name."""
    partial = folder / f"{_DONE}.partial"
    student.network.save_pretrained(partial)
    (folder / "metadata.json").write_text(json.dumps(found))
    partial.rename(folder / _DONE)


class ProgressiveObjective:
    """Error of the clean latent with which one step of the student arrives where several of the teacher do.

    It is the squared error, or how differently a classifier sees the pictures that the two clean latents become.

    Attributes:
        said: what the student predicts.

    """

    kept: Sequence[Any] = ()

    def __init__(
        self,
        options: Any,  # noqa: ANN401 - the plugin, which no helper imports
        lesson: TrainingContext,
        teacher: nn.Module,
        taught: str,
        grid: tuple[int, int],
        guidance: float | None,
        *,
        sees: bool = False,
    ) -> None:
        self._options, self._teacher, self._steps, self._guidance = options, teacher, grid, guidance
        self._schedule, self._draws = Schedule(lesson.schedule, options.verb), BatchSampler(options, lesson, LATENTS)
        self._taught = taught or self._schedule.prediction
        self.said = options.prediction or self._taught
        self._sight = ClassifierFeatureLoss(*lesson.sight, options.classifier.temperature) if sees and lesson.sight else None
        self.frozen = sum(value.numel() for value in teacher.parameters()) + (self._sight.frozen if self._sight else 0)
        self.metadata = {"prediction": self.said}
        self._grids: list[Tensor] = []

    def settle(self, device: torch.device, dtype: torch.dtype) -> None:
        """Bring teacher and data there."""
        self._teacher = own(self._teacher).to(device, dtype).eval()
        self._schedule.settle(device)
        self._draws.settle(device)
        self._grids = [self._schedule.grid(steps) for steps in self._steps]
        self._empty = self._draws.empty()
        if self._sight:
            self._sight.settle(device)

    def draw(self, share: int) -> tuple[Tensor, ...]:
        """Noisy latents, which step of the student's they are at, and conditioning."""
        clean, noise, generator, states = self._draws.pictures(share)
        index = torch.randint(self._steps[1], (len(clean),), generator=generator, device=clean.device)
        return self._schedule.noisy(clean, noise, self._grids[1][index]), index, *states

    def __call__(self, model: nn.Module, latent: Tensor, index: Tensor, *states: Tensor) -> dict[str, Tensor]:
        """The loss of one pass."""
        schedule, (fine, coarse) = self._schedule, self._grids
        now, then, each = coarse[index], coarse[index + 1], self._steps[0] // self._steps[1]
        with torch.no_grad():
            arrived = latent
            for place in range(each):
                start, stop = (fine[index * each + place + step] for step in (0, 1))
                arrived = schedule.step(self._taught, arrived, self._asked(arrived, start, states), start, stop)
            aim, _ = schedule.aim(latent, arrived, now, then)
        clean, _ = schedule.split(self.said, latent, model(latent, now.float(), *states).float(), now)
        latents = (schedule.weight(self._options.weighting, now) * (clean - aim) ** 2).mean()
        if self._sight is None:
            return {"loss": latents}
        seen, weights = self._sight(clean, aim), self._options.classifier
        return {"loss": weights.weight * seen + weights.latent * latents, "features": seen, "latent": latents}

    def _asked(self, latent: Tensor, times: Tensor, states: Sequence[Tensor]) -> Tensor:
        if self._guidance is None:
            return self._teacher(latent, times.float(), *states).float()
        scale = torch.full_like(latent[:, 0, 0, 0], self._guidance)
        return guided(self._teacher, latent, times, states, self._empty, scale)

    def stepped(self, parameters: Sequence[nn.Parameter]) -> None:
        """The teacher stays as it is until the next round."""

    def end(self) -> None:
        """Nothing was changed."""

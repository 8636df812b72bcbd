"""The teacher's own trajectories from noise, under guidance: what a student of few steps learns to leap along."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from engines.errors import UnsupportedError
from exporter.training.batches import Rows, order, settle
from exporter.training.encode import device
from exporter.training.memory import own
from exporter.training.noise_schedule import Schedule, guided

if TYPE_CHECKING:
    from exporter.training.context import TrainingContext
    from exporter.training.options import Played

PATHS, ROWS = "paths.npy", "rows.npy"
#: In which the teacher answers, as the student will; what is computed of its answers is float32 all the same.
_HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@torch.no_grad()
def play(options: Played, lesson: TrainingContext, folder: Path) -> None:
    """Write `paths.npy`, float32 (count, stops + 1, C, H, W), and `rows.npy`, the caption of each.

    A path starts at pure noise as samplers with trailing spacing do, and is kept at each of the options' stops.

    Raises:
        UnsupportedError: as `Schedule` says.

    """
    schedule, where = Schedule(lesson.schedule, options.verb), device()
    schedule.settle(where)
    network, half = own(lesson.teacher.module).to(where).eval(), _HALVES.get(options.mixed_precision)
    latents = Rows(lesson.encoded / "latents.npy")
    states = [Rows(lesson.encoded / f"{port}.npy") for port in lesson.ports]
    settle(states, where)
    empty = [rows.take(np.zeros(1, np.int64)).unsqueeze(1) for rows in states]
    fine = schedule.grid(options.teacher_steps)
    # Captions in turn, each as often as the others; row 0 is the empty prompt.
    picked = (np.arange(options.count) % (len(states[0]) - 1)) + 1
    np.save(folder / ROWS, picked)
    shape = (options.count, len(options.stops) + 1, *latents.shape[1:])
    paths = open_memmap(folder / PATHS, "w+", np.float32, shape)
    size = options.play_batch
    told = max(1, options.count // size // 10)
    for number, start in enumerate(range(0, options.count, size)):
        rows = picked[start : start + size]
        # Drawn, as a processor's generator takes 32 bits of a seed.
        seed = np.random.default_rng((options.seed, 3, number)).integers(2**32)
        generator = torch.Generator(where).manual_seed(int(seed))
        noise = torch.randn((len(rows), *shape[2:]), generator=generator, device=where)
        texts = [each.take(rows).unsqueeze(1) for each in states]
        scale = torch.full((len(rows),), options.guidance, device=where)
        latent = schedule.level(fine[:1])[1] * noise
        kept = [latent]
        for index in range(options.teacher_steps):
            now, then = (fine[place].expand(len(rows)) for place in (index, index + 1))
            with torch.autocast(where.type, half, enabled=half is not None):
                said = guided(network, latent, now, texts, empty, scale)
            latent = schedule.step(schedule.prediction, latent, said, now, then)
            if index + 1 in options.stops:
                kept.append(latent)
        paths[start : start + size] = torch.stack(kept, dim=1).cpu().numpy()
        if number % told == told - 1:
            lesson.say(f"{options.verb}: {start + len(rows):,} of {options.count:,} trajectories played")
    paths.flush()


class TeacherRollouts:
    """Trajectories that were played, a batch at a time."""

    def __init__(self, options: Played, lesson: TrainingContext) -> None:
        if lesson.played is None:
            raise UnsupportedError(f"{options.verb}: no trajectories were played.\n  Build the recipe, or run t2iexport distill.")
        self._options = options
        self._paths, self._captions = Rows(lesson.played / PATHS), np.load(lesson.played / ROWS)
        self._states = [Rows(lesson.encoded / f"{port}.npy") for port in lesson.ports]

    def settle(self, device: torch.device) -> None:
        """Bring them there, if they fit."""
        settle([self._paths, *self._states], device)

    def take(self, share: int) -> tuple[Tensor, np.random.Generator, list[Tensor]]:
        """Trajectories (N, stops + 1, C, H, W), what else is random, and conditioning (N, 1, …); each comes once per round."""
        options = self._options
        picked = order(options.seed, share, options.batch, len(self._paths))
        rng = np.random.default_rng((options.seed, 2, share))
        return self._paths.take(picked), rng, [rows.take(self._captions[picked]).unsqueeze(1) for rows in self._states]

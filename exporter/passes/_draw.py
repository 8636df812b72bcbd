"""What each step of a training sees: drawn from its number alone, so that a training that was cut goes on exactly."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from engines.errors import UnsupportedError

if TYPE_CHECKING:
    from exporter.lesson import Lesson
    from exporter.passes._options import Options


class Draws:
    """Batches of noisy latents with their captions and targets.

    Raises:
        UnsupportedError: the model was not trained to denoise along a variance-preserving schedule.

    """

    def __init__(self, options: Options, lesson: Lesson, latents: str) -> None:
        from diffusers import DDPMScheduler  # noqa: PLC0415 - lets tests of the rest load quickly

        name = str(lesson.schedule.get("_class_name", ""))
        if name.startswith("FlowMatch") or lesson.schedule.get("use_flow_sigmas"):
            raise UnsupportedError(f"distill: {name} is a flow, and the task loss knows noise, velocity and sample alone.")
        self._schedule = DDPMScheduler.from_config(dict(lesson.schedule))
        self.prediction = str(self._schedule.config.prediction_type)
        if self.prediction not in {"epsilon", "v_prediction", "sample"}:
            raise UnsupportedError(f"distill: a model of prediction_type {self.prediction!r} has no task loss.")
        self._options = options
        self._latents = _mapped(lesson.encoded / latents)
        self._states = [_mapped(lesson.encoded / f"{port}.npy") for port in lesson.ports]

    def batch(self, share: int) -> tuple[Tensor, Tensor, list[Tensor], Tensor]:
        """Noisy latents (N, C, H, W), times (N,), conditioning (N, 1, …) and targets (N, C, H, W), float32.

        Args:
            share: number of the batch, counted over steps, passes and processes; every picture comes once per round.

        """
        options, count = self._options, len(self._latents)
        places = range(share * options.batch, (share + 1) * options.batch)
        picked = np.array([_order(options.seed, place // count, count)[place % count] for place in places])
        rng = np.random.default_rng((options.seed, 1, share))
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        rows = np.where(rng.random(len(picked)) < options.empty, 0, picked + 1)
        clean = torch.from_numpy(self._latents[picked]).float()
        noise = torch.randn(clean.shape, generator=generator)
        times = torch.randint(self._schedule.config.num_train_timesteps, (len(picked),), generator=generator)
        target = {
            "epsilon": lambda: noise,
            "v_prediction": lambda: self._schedule.get_velocity(clean, noise, times),
            "sample": lambda: clean,
        }[self.prediction]()
        conditioning = [torch.from_numpy(states[rows]).float().unsqueeze(1) for states in self._states]
        return self._schedule.add_noise(clean, noise, times), times.float(), conditioning, target


@lru_cache(maxsize=2)
def _order(seed: int, turn: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, 0, turn)).permutation(count)


def _mapped(file: Path) -> Any:  # noqa: ANN401 - a memory-mapped array, read by index
    return np.load(file, mmap_mode="r")

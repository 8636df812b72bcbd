"""What each step of a training sees: drawn from its number alone, so that a training that was cut goes on exactly."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from engines.errors import UnsupportedError
from exporter.training.noise_schedule import ddpm

if TYPE_CHECKING:
    from exporter.training.context import TrainingContext
    from exporter.training.options import Options

#: Share of the accelerator's free memory that the data may take.
_ROOM = 0.5


class BatchSampler:
    """Batches of noisy latents with their captions and targets.

    Attributes:
        device: where batches are.
        prediction: what the model predicts.

    Raises:
        UnsupportedError: the model was not trained to denoise along a variance-preserving schedule.

    """

    def __init__(self, options: Options, lesson: TrainingContext, latents: str) -> None:
        name = str(lesson.schedule.get("_class_name", ""))
        if name.startswith("FlowMatch") or lesson.schedule.get("use_flow_sigmas"):
            raise UnsupportedError(f"{options.verb}: {name} is a flow, and the task loss knows noise, velocity and sample alone.")
        self._schedule = ddpm(lesson.schedule)
        self.prediction = str(self._schedule.config["prediction_type"])
        if self.prediction not in {"epsilon", "v_prediction", "sample"}:
            raise UnsupportedError(f"{options.verb}: a model of prediction_type {self.prediction!r} has no task loss.")
        self._count = int(self._schedule.config["num_train_timesteps"])
        self._options = options
        self.device = torch.device("cpu")
        self._latents = Rows(lesson.encoded / latents)
        self._states = [Rows(lesson.encoded / f"{port}.npy") for port in lesson.ports]

    def settle(self, device: torch.device) -> None:
        """Give batches on this device from now on; the data moves there if it fits, so that no step waits for the host."""
        self.device = device
        settle([self._latents, *self._states], device)

    def empty(self) -> list[Tensor]:
        """The empty prompt's conditioning, (1, 1, …)."""
        return [states.take(np.zeros(1, np.int64)).unsqueeze(1) for states in self._states]

    def batch(self, share: int) -> tuple[Tensor, Tensor, list[Tensor], Tensor]:
        """Noisy latents (N, C, H, W), times (N,), conditioning (N, 1, …) and targets (N, C, H, W), float32.

        Args:
            share: number of the batch, counted over steps, passes and processes; every picture comes once per round.

        """
        clean, noise, generator, states = self.pictures(share)
        times = torch.randint(self._count, (len(clean),), generator=generator, device=self.device)
        steps = cast("torch.IntTensor", times)  # so diffusers names the type, and takes any integers
        target = {
            "epsilon": lambda: noise,
            "v_prediction": lambda: self._schedule.get_velocity(clean, noise, steps),
            "sample": lambda: clean,
        }[self.prediction]()
        return self._schedule.add_noise(clean, noise, steps), times.float(), states, target

    def pictures(self, share: int) -> tuple[Tensor, Tensor, torch.Generator, list[Tensor]]:
        """Latents (N, C, H, W), noise of that shape, the generator for what else is random, and conditioning (N, 1, …)."""
        options, count = self._options, len(self._latents)
        picked = order(options.seed, share, options.batch, count)
        rng = np.random.default_rng((options.seed, 1, share))
        generator = torch.Generator(self.device).manual_seed(int(rng.integers(2**62)))
        rows = np.where(rng.random(len(picked)) < options.empty, 0, picked + 1)
        clean = self._latents.take(picked)
        noise = torch.randn(clean.shape, generator=generator, device=self.device)
        return clean, noise, generator, [states.take(rows).unsqueeze(1) for states in self._states]


class Rows:
    """An array on disk, of which some rows at a time are wanted as float32 on a device."""

    def __init__(self, file: Path) -> None:
        self._array: Any = np.load(file, mmap_mode="r")
        self._table: Tensor | None = None
        self._device = torch.device("cpu")

    def __len__(self) -> int:
        return len(self._array)

    @property
    def size(self) -> int:
        """Bytes."""
        return int(self._array.nbytes)

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's."""
        return tuple(self._array.shape)

    def settle(self, device: torch.device, *, whole: bool) -> None:
        """Give rows on this device, from a copy there or copied as they are asked for."""
        self._device = device
        self._table = torch.from_numpy(np.array(self._array)).to(device) if whole else None

    def take(self, rows: np.ndarray) -> Tensor:
        """The rows, float32."""
        if self._table is not None:
            return self._table[torch.from_numpy(rows).to(self._device, non_blocking=True)].float()
        # A copy even of float32: numpy aligns less than torch does, and kernels are chosen by alignment.
        return torch.from_numpy(self._array[rows]).to(self._device, non_blocking=True).to(torch.float32, copy=True)


def settle(arrays: list[Rows], device: torch.device) -> None:
    """Move arrays to an accelerator together, if they fit; the processor reads them from the disk's cache as it goes."""
    whole = device.type == "cuda" and sum(rows.size for rows in arrays) < _ROOM * torch.cuda.mem_get_info(device)[0]
    for rows in arrays:
        rows.settle(device, whole=whole)


def order(seed: int, share: int, batch: int, count: int) -> np.ndarray:
    """Which of `count` items a batch holds; each comes once per round."""
    places = range(share * batch, (share + 1) * batch)
    return np.array([_permutation(seed, place // count, count)[place % count] for place in places])


@lru_cache(maxsize=2)
def _permutation(seed: int, turn: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, 0, turn)).permutation(count)

"""The noise process of a model as data, and what the samplers that solve it share.

A variance-preserving diffusion mixes a clean latent and noise as `exp(-u/2) · clean + sqrt(1 - exp(-u)) · noise`. On the clock
u = -log(alpha-bar) it has no coefficients left: the reverse SDE is dx = (x/2 + score) du + dw towards smaller u, and the score
is minus the noise that the model predicts, over sqrt(1 - exp(-u)).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, ValidationError, field_validator

from engines.errors import UnsupportedError
from engines.samplers import Denoise, Draw, OnStep
from engines.strict import Frozen, describe

_LIMIT = 16 * 2**20
Prediction = Literal["epsilon", "v_prediction", "sample"]


class ProcessProvenance(Frozen):
    """The scheduler that the process was read off."""

    scheduler: str
    config: dict[str, Any]
    library: str


class Process(Frozen):
    """A variance-preserving diffusion: what its model was trained on, and what it answers.

    Attributes:
        provenance: where it comes from.
        prediction: what the model's output is; `v_prediction` is sqrt(alpha-bar) · noise - sqrt(1 - alpha-bar) · clean.
        log_alpha_bar: at the model times 0, 1, 2 …: the log of the share of variance that is signal.

    """

    format: Literal[1] = 1
    provenance: ProcessProvenance
    prediction: Prediction
    log_alpha_bar: tuple[Annotated[float, Field(ge=-50, le=-1e-12)], ...] = Field(min_length=2, max_length=100_000)

    @field_validator("log_alpha_bar")
    @classmethod
    def _falling(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        for time, (one, next_one) in enumerate(itertools.pairwise(values), 1):
            if next_one >= one:
                raise ValueError(f"the signal must fall with time, and does not at time {time}")
        return values

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a process's JSON file; raise BundleError when it is damaged."""
        return cls.read(path, _LIMIT)

    def dump(self, path: Path) -> None:
        """Write the JSON file that `load` reads."""
        path.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    @property
    def noisy(self) -> float:
        """The clock u where sampling starts, at the last of the model's times."""
        return -self.log_alpha_bar[-1]

    @property
    def clean(self) -> float:
        """The clock u where sampling ends, at the model time 0."""
        return -self.log_alpha_bar[0]

    @cached_property
    def _levels(self) -> np.ndarray:
        """Log of noise over signal at every model time, rising."""
        return np.log(np.expm1(-np.array(self.log_alpha_bar))) / 2

    def time(self, clock: np.ndarray) -> np.ndarray:
        """The model time at a clock, float64; between two times it is linear in log(noise / signal), as in diffusers."""
        return np.interp(np.log(np.expm1(clock)) / 2, self._levels, np.arange(len(self._levels)))

    def clock(self, time: np.ndarray) -> np.ndarray:
        """The clock u at a model time, float64; the inverse of `time`."""
        return np.log1p(np.exp(2 * np.interp(time, np.arange(len(self._levels)), self._levels)))


class Continuous(Frozen):
    """A sampler that solves the process of a model at run time; its other fields are the user's options."""

    process: Process

    def play(
        self,
        denoise: Denoise,
        draw: Draw,
        on_step: OnStep | None = None,
        given: Mapping[str, np.ndarray] | None = None,
        mask: np.ndarray | None = None,
    ) -> np.ndarray:
        """Run the sampler; a picture depends on its own noise alone.

        Returns:
            The final latent, a new float32 array of the shape of the first noise.

        Raises:
            UnsupportedError: a latent or a mask is given, the denoiser returned another shape, NaN or infinity, or the sampler's
                `max_steps` were not enough.

        """
        if given or mask is not None:
            raise UnsupportedError("this sampler starts from noise alone. Take a compiled one for a given image or a mask.")
        return self.solve(CheckedDenoiser(self.process, denoise), draw, on_step or (lambda _: None)).astype(np.float32)

    def solve(self, model: CheckedDenoiser, draw: Draw, tell: OnStep) -> np.ndarray:
        """What each sampler does: from noise to the clean latent."""
        raise NotImplementedError

    @classmethod
    def load(cls, path: Path, **options: Any) -> Self:  # noqa: ANN401 - the fields of each sampler
        """Read the process that the build wrote.

        Raises:
            BundleError: it is damaged.
            UnsupportedError: an option is unknown or out of bounds; lists what there is.

        """
        process = Process.load(path)
        try:
            return cls(process=process, **options)
        except ValidationError as error:
            raise UnsupportedError(f"{describe(error)}\nThe options are:\n{cls.options()}") from error

    @classmethod
    def options(cls) -> str:
        """One line an option: name, default, what it is."""
        fields = {name: field for name, field in cls.model_fields.items() if name != "process"}
        return "\n".join(f"  {name}={field.default}  {field.description}" for name, field in fields.items())


class CheckedDenoiser:
    """A denoiser asked for noise or for the clean latent; what it answers is checked.

    Attributes:
        process: that it was trained on.
        step: number of the sampler's step, for messages.

    """

    def __init__(self, process: Process, denoise: Denoise) -> None:
        self.step = 0
        self.process, self._denoise = process, denoise

    def noise(self, latent: np.ndarray, clock: np.ndarray, which: np.ndarray) -> np.ndarray:
        """Predict the noise in some pictures' latents.

        Args:
            latent: (items, C, H, W).
            clock: float64 (items,).
            which: int64 (items,), the picture of each.

        Returns:
            float64, of the latent's shape.

        Raises:
            UnsupportedError: the denoiser returned another shape, NaN or infinity.

        """
        output, (signal, noise) = self._output(latent, clock, which), mixture(clock, latent.ndim)
        match self.process.prediction:
            case "epsilon":
                return output
            case "v_prediction":
                return signal * output + noise * latent
            case "sample":
                return (latent - signal * output) / noise

    def clean(self, latent: np.ndarray, clock: np.ndarray, which: np.ndarray) -> np.ndarray:
        """Predict the clean latents; arguments, result and errors are those of `noise`."""
        output, (signal, noise) = self._output(latent, clock, which), mixture(clock, latent.ndim)
        match self.process.prediction:
            case "epsilon":
                return (latent - noise * output) / signal
            case "v_prediction":
                return signal * latent - noise * output
            case "sample":
                return output

    def _output(self, latent: np.ndarray, clock: np.ndarray, which: np.ndarray) -> np.ndarray:
        times = self.process.time(clock).astype(np.float32)
        output = self._denoise(latent.astype(np.float32), times, which)
        where = f"step {self.step}: the denoiser"
        if output.shape != latent.shape:
            raise UnsupportedError(f"{where} returned shape {list(output.shape)}; the latent has {list(latent.shape)}.")
        if not np.isfinite(output).all():
            item = int(np.argmin(np.isfinite(output).all(axis=tuple(range(1, output.ndim)))))
            raise UnsupportedError(
                f"{where} returned NaN or infinity for picture {which[item] + 1} (t = {times[item]:g}). "
                "If it computes in fp16, build it with precision bf16 or fp32."
            )
        return output.astype(np.float64)


def mixture(clock: np.ndarray, axes: int) -> tuple[np.ndarray, np.ndarray]:
    """Factors of signal and noise at a clock, float64 (items, 1 …) of so many axes."""
    clock = spread(clock, axes)
    return np.exp(-clock / 2), np.sqrt(-np.expm1(-clock))


def spread(values: np.ndarray, axes: int) -> np.ndarray:
    """(items,) as (items, 1 …) of so many axes."""
    return values.reshape(-1, *[1] * (axes - 1))


def rms(array: np.ndarray) -> np.ndarray:
    """Root mean square of each item, float64 (items,)."""
    return np.sqrt(np.mean(np.square(array, dtype=np.float64), axis=tuple(range(1, array.ndim))))


def endless(steps: int, rejected: np.ndarray, way: np.ndarray, active: np.ndarray) -> UnsupportedError:
    """The error that some pictures are not finished after so many steps; `way` (items,) is the share that is done."""
    first = active[0]
    return UnsupportedError(
        f"picture {first + 1} is not finished after {steps} steps, {rejected[first]} of them rejected; it has gone "
        f"{max(way[first], 0):.0%} of the way. Allow a larger error (relative, absolute), or more steps (max_steps)."
    )

"""One kind of sampler per file. A sampler plays denoiser calls and noise into a final latent; it knows no model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import numpy as np


class Denoise(Protocol):
    """A denoiser with its conditioning already bound."""

    def __call__(
        self,
        latent: np.ndarray,
        timestep: float | np.ndarray,
        which: np.ndarray | None = None,
        *,
        guided: float | np.ndarray | None = None,
        shallow: bool = False,
    ) -> np.ndarray:
        """Evaluate the model once, on as many items as there are.

        Args:
            latent: float32 (items, C, H, W), scaled as the model takes it.
            timestep: model time, one for all items or float32 (items,).
            which: int64 (items,), the picture that each item belongs to; None means item i is picture i.
            guided: share of the guidance that counts, one for all items or float32 (items,); None is all of it.
            shallow: whether the outermost layers answer alone, on the deep feature of the last call that was whole.

        Returns:
            Model output, float32, of the latent's shape.

        """
        ...


#: `draw()`: the next standard normal noise, float32 (B, C, H, W).
Draw = Callable[[], np.ndarray]


@dataclass(frozen=True)
class Step:
    """How far a sampler is.

    Attributes:
        index: of this step, counted from 1.
        total: number of steps, or None where that depends on the picture.
        latent: what the model saw, float32 (B, C, H, W).
        preview: the clean latent that the model's answer points to, float32 (B, C, H, W), which `Pipeline.decode` shows;
            None where the sampler cannot say.
        timestep: what the model was told, in its own units; None where it is not one of all pictures.

    """

    index: int
    total: int | None
    latent: np.ndarray
    preview: np.ndarray | None = None
    timestep: float | None = None


class Cancelled(Exception):  # noqa: N818 - what happened, and no error
    """For an `on_step` to raise when it wants no more steps; it reaches whoever asked for the pictures."""


#: Called after every step. Whatever it raises, `Cancelled` or another, ends the sampling there and reaches the caller.
OnStep = Callable[[Step], None]


class Player(Protocol):
    """Plays a denoiser from noise to a latent."""

    def play(
        self,
        denoise: Denoise,
        draw: Draw,
        on_step: OnStep | None = None,
        given: Mapping[str, np.ndarray] | None = None,
        mask: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return the final latent, float32 (B, C, H, W).

        `given` are latents of that shape by name, for a sampler that starts from one; `mask` is bool and broadcasts to the
        shape: True where the latent is made anew, False where the given `image` is kept.
        """
        ...


class Sampler(Player, Protocol):
    """A player that a bundle holds."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what the build wrote; raise BundleError when it is damaged."""
        ...

    @classmethod
    def load_start(cls, path: Path, start: int, *, alone: bool = False, strength: float = 1.0) -> Self:
        """Read one that starts from a given latent, `image`, and leaves out `start` steps; `alone` begins with noise alone.

        Where steps are spread over the `strength`, none is left out.

        Asked only of a sampler whose entry in the manifest has a file for it.
        """
        ...

    @classmethod
    def load_between(cls, path: Path, start: float | None, end: float | None) -> Self:
        """Read one that goes on from a given latent, `image`, at a share of the noise's way, or that stops at one.

        Asked only of a sampler whose entry in the manifest has a file for it.
        """
        ...

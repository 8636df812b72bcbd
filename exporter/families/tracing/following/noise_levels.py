"""Where a pipeline's step is computed from the noise's level, a scheduler's sigma: that is followed as its time is.

`scheduler.sigmas[i]` is a number to the pipeline, and one a picture in the graph: whatever is computed of it alone stays so,
and beside a tensor of pictures each picture's counts for it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from engines.errors import UnsupportedError
from exporter.families.tracing.following.standins import stand_in
from exporter.models.predictor_corrector import of_scores

#: Functions of two numbers, by their names in torch without what says in which order they stand.
_PAIRED = {"add", "sub", "mul", "div", "truediv", "true_divide", "pow"}


class NoiseLevels(TorchFunctionMode):
    """Within it numbers that are one a picture stand beside tensors of pictures as a number does.

    Attributes:
        read: whether the pipeline asked for one.

    """

    def __init__(self) -> None:
        super().__init__()
        self.read = False
        self._levels: list[Tensor] = []

    def level(self, value: Tensor) -> Tensor:
        """The level of this step, (B,), which the pipeline asks for."""
        self.read = True
        self._levels.append(value)
        return value

    def _is_level(self, value: Any) -> bool:  # noqa: ANN401 - any argument
        return any(value is each for each in self._levels)

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - whatever torch's function returns
        tensors = [each for each in args if isinstance(each, Tensor)]
        own = [each for each in tensors if self._is_level(each)]
        if not own:
            return func(*args, **(kwargs or {}))
        if len(own) == len(tensors):
            found = func(*args, **(kwargs or {}))
            if isinstance(found, Tensor) and found.shape == own[0].shape:
                self._levels.append(found)
            return found
        name = getattr(func, "__name__", "").strip("_")
        other = max(tensors, key=lambda each: each.ndim)
        if other.ndim > 1 and {name, name.removeprefix("r")} & _PAIRED:
            args = [beside(each, other) if self._is_level(each) else each for each in args]
        return func(*args, **(kwargs or {}))


def beside(level: Tensor, other: Tensor) -> Tensor:
    """One number a picture, for a tensor to compute with: as many as it has rows, with further axes of length 1."""
    rows = level if level.shape[0] == other.shape[0] else level.repeat(other.shape[0] // level.shape[0])
    return rows.reshape(-1, *[1] * (other.ndim - 1)).to(other.dtype)


class Sigmas:
    """In the place of a scheduler's `sigmas`: that of the one step which is followed.

    Args:
        levels: who is told that it was asked for.
        value: (B,).

    """

    def __init__(self, levels: NoiseLevels, value: Tensor) -> None:
        self._levels, self._value = levels, value

    def __getitem__(self, place: Any) -> Tensor:  # noqa: ANN401 - as Python has it
        if type(place) is not int or place != 0:
            raise UnsupportedError(
                f"a step is computed from the scheduler's sigmas at {place!r}, and one step's own is followed.\n"
                "  This is a gap in t2iexport."
            )
        return self._levels.level(self._value)


def followed(stand_in_: Any, real: Any, levels: NoiseLevels, value: Tensor, *, known: bool) -> Any:  # noqa: ANN401 - schedulers
    """The stand-in of a scheduler with sigmas that are followed; `value`, (B,), is the one of its step.

    Where it is `known` that a step is computed from them, latents are scaled by the scheduler's own code, and its only time is no
    number, so that a step which is computed from that too comes to nothing.
    """
    if not hasattr(real, "sigmas") or of_scores(type(real)):  # whose time is its level: `correctors`
        return stand_in_
    attributes: dict[str, Any] = {"sigmas": Sigmas(levels, value), "_step_index": 0}
    if known:
        placed = stand_in_.set_timesteps

        def set_timesteps(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - diffusers'
            placed(*args, **kwargs)
            self.timesteps, self.num_inference_steps = torch.full_like(value, torch.nan)[None], 1

        def scale_model_input(self: Any, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401 - diffusers'
            stand_in_.scale_model_input(*args, **kwargs)  # which notes that it is
            return type(real).scale_model_input(self, *args, **kwargs)

        set_timesteps.__signature__ = inspect.signature(type(real).set_timesteps)  # type: ignore[attr-defined]
        attributes |= {"set_timesteps": set_timesteps, "scale_model_input": scale_model_input}
    return stand_in(stand_in_, **attributes)

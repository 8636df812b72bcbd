"""Noise for what a pipeline makes of its pictures that is no latent's, as unCLIP adds it to CLIP's embedding: an input.

A latent's noise has channels, height and width; this one has fewer axes, and a seed draws it before all other.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from engines.errors import UnsupportedError
from exporter.families.tracing.following.origins import marked

#: The input, and the origin of what is made of it.
NOISE = "image_noise"
#: Axes of a latent's noise, the batch among them.
_LATENT = 4


class OwnNoise(TorchFunctionMode):
    """Within it such noise of a pipeline as diffusers runs it is the next of those `given`, (pictures, draws, …)."""

    def __init__(self, given: Tensor) -> None:
        super().__init__()
        self._given, self._numbers = given, itertools.count()

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - whatever torch's function returns
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") == "randn" and kwargs.get("generator") is not None:
            size = kwargs.get("size", args)
            shape = tuple(size[0] if len(size) == 1 and not isinstance(size[0], int) else size)
            if len(shape) < _LATENT:
                dtype = kwargs.get("dtype") or torch.get_default_dtype()
                return self._given[:, next(self._numbers)].reshape(shape).to(dtype)
        return func(*args, **kwargs)


def beside(
    draw: Callable[[Sequence[Any]], Tensor], given: Tensor | None = None, seen: list[tuple[int, ...]] | None = None
) -> Callable[[Sequence[Any]], Tensor]:
    """What answers a pipeline's draws: `draw` those of a latent's axes, and those of fewer what is `given`, else zeros.

    The shapes of these, with the batch, are noted in `seen`.

    Raises:
        UnsupportedError: by what is returned, where one of fewer is drawn behind others.

    """
    numbers, others = itertools.count(), list[int]()

    def either(shape: Sequence[Any]) -> Tensor:
        if len(shape) >= _LATENT:
            others.append(len(shape))
            return draw(shape)
        if others:
            raise UnsupportedError(
                f"noise of {list(shape)} is drawn behind that of a latent, and a seed draws it before.\n"
                "  This is a gap in t2iexport."
            )
        if seen is not None:
            seen.append(tuple(shape))
        number = next(numbers)
        return marked(torch.zeros(tuple(shape)) if given is None else given[:, number].reshape(tuple(shape)), NOISE)

    return either


def of_a_picture(shapes: Sequence[tuple[int, ...]], where: str) -> tuple[int, ...]:
    """How many of such noises there are for one picture, and the shape of each; () of none.

    Raises:
        UnsupportedError: they are of several shapes.

    """
    if len(set(shapes)) > 1:
        raise UnsupportedError(f"{where} draws noises of several shapes for its pictures ({sorted(set(shapes))}); one is built.")
    return (len(shapes), *shapes[0][1:]) if shapes else ()

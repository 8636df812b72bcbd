"""Pipelines that draw from no text alone: each picture starts from another one, as depth-to-image and SDXL's refiner do.

Such a pipeline is its own sibling. Followed for its steps, at full strength, it is shown a picture that nobody looks into, and
begins with noise where it would add noise to that.

One that fills a mask, and shows its network picture and mask at every step, as FLUX.1 Fill does, puts its picture under noise
before the first step: at full strength, and of a scheduler whose first time is noise alone, nothing of it is left.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from torch import Tensor

from engines.errors import UnsupportedError
from exporter.families.tracing.following import standins

#: The argument that is the picture, what shows that a pipeline starts from one, and what shows that it fills masks.
_IMAGE, _STRENGTH, _MASK = "image", "strength", "mask_image"


class Blank(Image.Image):
    """A picture of which nothing is to come but its size: that of `content`, (B, channels, height, width)."""

    def __init__(self, content: Tensor) -> None:
        super().__init__()
        self.content, self._size = content, (content.shape[3], content.shape[2])


def alone(pipeline: Any) -> bool:  # noqa: ANN401 - of diffusers, surveyed as it is, or its class
    """Whether a pipeline whose steps are followed starts from a picture itself."""
    kind: Any = pipeline if isinstance(pipeline, type) else type(pipeline)
    takes = inspect.signature(inspect.unwrap(kind.__call__)).parameters
    return _IMAGE in takes and _STRENGTH in takes and _MASK not in takes


def blank(pipeline: Any, batch: Any, height: Any, width: Any) -> dict[str, Any]:  # noqa: ANN401 - open lengths
    """The argument of its call that is a picture to start from, of that size: one that is nothing; none of other pipelines."""
    return {_IMAGE: Blank(torch.zeros(batch, 3, height, width))} if alone(pipeline) else {}


def processors(pipeline: Any) -> dict[str, Any]:  # noqa: ANN401
    """Image processors of such a pipeline, which take a blank for its latent; none of other pipelines."""
    if not alone(pipeline):
        return {}

    preprocess = beside_blanks(pipeline, VaeImageProcessor.preprocess)
    found = {name: value for name, value in vars(pipeline).items() if isinstance(value, VaeImageProcessor)}
    return {name: standins.stand_in(real, preprocess=preprocess) for name, real in found.items()}


def beside_blanks(pipeline: Any, preprocess: Callable[..., Tensor]) -> Callable[..., Tensor]:  # noqa: ANN401
    """A method of image processors, which takes a blank for its latent."""

    def taking(self: Any, image: Any, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401 - as diffusers has it
        return begun(pipeline, image) if isinstance(image, Blank) else preprocess(self, image, *args, **kwargs)

    return taking


def begun(pipeline: Any, image: Blank) -> Tensor:  # noqa: ANN401
    """The latent of a blank, (B, channels, height, width), which these pipelines do not encode again."""
    batch, _, height, width = image.content.shape
    factor = pipeline.vae_scale_factor
    return torch.zeros(batch, pipeline.vae.config.latent_channels, height // factor, width // factor)


def methods(play: Any) -> dict[str, Any]:  # noqa: ANN401 - a `dry_run.Play` of one
    """Methods of the scheduler of such a pipeline, which begins with noise where it would add it; none of others.

    Where its picture is put under noise before a mask in it is filled, the play is told so (`fills`).
    """
    pipeline = play.pipeline
    if alone(pipeline):
        return {"add_noise": noised}

    def scale_noise(_self: object, _sample: Tensor, _time: object, noise: Tensor) -> Tensor:
        if play.phase != "before":
            raise UnsupportedError(
                f"{type(pipeline).__name__} puts back what its mask keeps after every step, and shows its network picture and "
                "mask as well. A bundle does one of both.\n  This is a gap in t2iexport."
            )
        play.fills = True
        return noise

    takes = inspect.signature(inspect.unwrap(type(pipeline).__call__)).parameters
    fills = {_IMAGE, _STRENGTH, _MASK} <= takes.keys() and hasattr(pipeline.scheduler, "scale_noise")
    return {"scale_noise": scale_noise} if fills else {}


def of_two_steps(scheduler: Any) -> Any:  # noqa: ANN401 - of a `dry_run.Play`
    """The same scheduler with two times, 1 and 0."""
    placed = scheduler.set_timesteps

    def set_timesteps(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - diffusers'
        placed(*args, **kwargs)
        self.timesteps = torch.tensor([1.0, 0.0])

    set_timesteps.__signature__ = inspect.signature(placed)  # type: ignore[attr-defined] - pipelines look at it
    return standins.stand_in(scheduler, set_timesteps=set_timesteps)


def left_under_noise(scheduler: Any, steps: int, asked: Mapping[str, Any]) -> float:  # noqa: ANN401 - of diffusers
    """What share of a picture is left where a scheduler puts it under noise at the first of so many steps.

    `asked`: what its pipeline tells it beside their number.
    """
    own = copy.deepcopy(scheduler)
    own.set_timesteps(**({} if {"sigmas", "timesteps"} & asked.keys() else {"num_inference_steps": steps}), **asked)
    return float(own.scale_noise(torch.ones(1, 1, 1, 1), own.timesteps[:1], torch.zeros(1, 1, 1, 1)).abs().max())


def noised(_self: object, _original: Tensor, noise: Tensor, _time: object) -> Tensor:
    """In the place of a scheduler's `add_noise`: the noise alone."""
    return noise


@contextmanager
def from_noise(pipeline: Any) -> Iterator[None]:  # noqa: ANN401
    """Within it such a pipeline, as diffusers runs it, begins with noise of its first time; others are as they are."""
    scheduler = pipeline.scheduler
    if alone(pipeline):
        scheduler.add_noise = lambda _original, noise, _time: noise * scheduler.init_noise_sigma
    try:
        yield
    finally:
        vars(scheduler).pop("add_noise", None)

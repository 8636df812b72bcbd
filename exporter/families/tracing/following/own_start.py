"""Pipelines that draw from no text alone: each picture starts from another one, as depth-to-image and SDXL's refiner do.

Such a pipeline is its own sibling. Followed for its steps, at full strength, it is shown a picture that nobody looks into, and
begins with noise where it would add noise to that.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from torch import Tensor

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

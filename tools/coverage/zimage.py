"""Micro models of Z-Image's further pipelines: with ControlNets, and with pictures beside the text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import diffusers as library
from diffusers import DiffusionPipeline

from tools.coverage import readers
from tools.coverage.controlnets import under
from tools.coverage.parts import alive

#: Whose classes are typed for models of their own size and kind.
diffusers: Any = library


def controlled(kind: str = "ZImageControlNetPipeline", channels: int = 4, **changes: Any) -> DiffusionPipeline:  # noqa: ANN401
    """A ControlNet of one layer, which takes embeddings and refiners from the transformer; `channels` of what it sees."""
    network = diffusers.ZImageControlNetModel(
        control_layers_places=[0], control_in_dim=channels, dim=32, n_refiner_layers=1, n_heads=2, n_kv_heads=2, **changes
    )
    return under(kind, readers.z_image(), controlnet=alive(network))


#: Name → what makes the pipeline.
MADE: Mapping[str, Callable[[], DiffusionPipeline]] = {
    "z-image-controlnet": controlled,
    "z-image-controlnet-inpaint": partial(
        controlled,
        "ZImageControlNetInpaintPipeline",
        9,
        control_refiner_layers_places=[0],
        add_control_noise_refiner="control_layers",
    ),
}

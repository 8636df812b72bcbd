"""Micro models of Z-Image's further pipelines: with ControlNets, and with pictures beside the text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import diffusers as library
import transformers
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


def omni() -> DiffusionPipeline:
    """Z-Image's networks under the pipeline that may be given several pictures, which a SigLIP sees too."""
    made = readers.z_image()
    network = diffusers.ZImageTransformer2DModel(**{**made.transformer.config, "siglip_feat_dim": 16})
    config = transformers.Siglip2VisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_patches=16, patch_size=16
    )
    seen = {"siglip": alive(transformers.Siglip2VisionModel(config)), "siglip_processor": transformers.Siglip2ImageProcessorPil()}
    return diffusers.ZImageOmniPipeline(**{**made.components, "transformer": alive(network), **seen})


#: Name → what makes the pipeline.
MADE: Mapping[str, Callable[[], DiffusionPipeline]] = {
    "z-image-controlnet": controlled,
    "z-image-omni": omni,
    "z-image-controlnet-inpaint": partial(
        controlled,
        "ZImageControlNetInpaintPipeline",
        9,
        control_refiner_layers_places=[0],
        add_control_noise_refiner="control_layers",
    ),
}

"""Micro models of pipelines in none of diffusers' lists that were first tried when all others had been built."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import diffusers as library
from diffusers import DiffusionPipeline

from tools.coverage import pipelines, unets
from tools.coverage.parts import alive

#: Whose classes are typed for models of their own size and kind.
diffusers: Any = library


def sana_sprint() -> DiffusionPipeline:
    """Sana, distilled to few steps of continuous-time consistency; the guidance scale is the network's."""
    made = pipelines.sana().components
    network = diffusers.SanaTransformer2DModel(**{**made["transformer"].config, "guidance_embeds": True})
    return diffusers.SanaSprintPipeline(**{**made, "transformer": alive(network), "scheduler": diffusers.SCMScheduler()})


def sana_controlnet() -> DiffusionPipeline:
    """Sana with a ControlNet over the latent of its picture."""
    made: Any = pipelines.sana()
    takes = {name: made.transformer.config[name] for name in (
        "in_channels", "num_attention_heads", "attention_head_dim", "num_layers", "num_cross_attention_heads",
        "cross_attention_head_dim", "cross_attention_dim", "caption_channels", "sample_size", "patch_size",
    )}  # fmt: skip
    return diffusers.SanaControlNetPipeline(**made.components, controlnet=alive(diffusers.SanaControlNetModel(**takes)))


def hunyuan_controlnet() -> DiffusionPipeline:
    """Hunyuan-DiT with a ControlNet over the latent of its picture."""
    made: Any = unets.hunyuan()
    takes = {name: made.transformer.config[name] for name in (
        "sample_size", "patch_size", "attention_head_dim", "num_attention_heads", "in_channels", "cross_attention_dim",
        "cross_attention_dim_t5", "pooled_projection_dim", "hidden_size", "text_len", "text_len_t5",
    )}  # fmt: skip
    beside = diffusers.HunyuanDiT2DControlNetModel(**takes, transformer_num_layers=2)
    return diffusers.HunyuanDiTControlNetPipeline(**made.components, controlnet=alive(beside), requires_safety_checker=False)


def flux_fill() -> DiffusionPipeline:
    """FLUX.1 with the latent of a masked picture, and the mask pixel by pixel, packed beside each of its own packed cells."""
    made: Any = pipelines.flux(guided=True)
    packed = 4 * (1 + 1 + 2**2)  # of two latents of one channel, and of two pixels to a cell and side
    network = diffusers.FluxTransformer2DModel(**{**made.transformer.config, "in_channels": packed, "out_channels": 4})
    parts = {name: made.components[name] for name in inspect.signature(diffusers.FluxFillPipeline).parameters}
    return diffusers.FluxFillPipeline(**{**parts, "transformer": alive(network)})


#: Name → what makes the pipeline.
MADE: Mapping[str, Callable[[], DiffusionPipeline]] = {
    "flux-fill": flux_fill,
    "sana-sprint": sana_sprint,
    "sana-controlnet": sana_controlnet,
    "hunyuan-controlnet": hunyuan_controlnet,
}

"""Micro models of pipelines in none of diffusers' lists that were first tried when all others had been built."""

from __future__ import annotations

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
    """FLUX.1's network with the picture that is kept, and its mask, beside the latent."""
    made = pipelines.flux(guided=True).components
    network = diffusers.FluxTransformer2DModel(**{**made["transformer"].config, "in_channels": 24, "out_channels": 4})
    parts = {name: each for name, each in made.items() if name not in ("image_encoder", "feature_extractor")}
    return diffusers.FluxFillPipeline(**{**parts, "transformer": alive(network)})


def controlnet_xs() -> DiffusionPipeline:
    """Stable Diffusion with a ControlNet that is interleaved with its UNet."""
    made: Any = unets.stable_diffusion(layers_per_block=2)
    beside = diffusers.ControlNetXSAdapter.from_unet(made.unet, size_ratio=0.5)
    parts = {name: each for name, each in made.components.items() if name != "image_encoder"}
    return diffusers.StableDiffusionControlNetXSPipeline(**parts, controlnet=alive(beside), requires_safety_checker=False)


def pndm() -> DiffusionPipeline:
    """Pixels without a text, by pseudo numerical steps."""
    network = diffusers.UNet2DModel(
        sample_size=32, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    return diffusers.PNDMPipeline(unet=alive(network), scheduler=diffusers.PNDMScheduler(skip_prk_steps=True))


def ldm() -> DiffusionPipeline:
    """Latents of a VQ-VAE without a text."""
    network = diffusers.UNet2DModel(
        sample_size=16, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    codes = diffusers.VQModel(
        block_out_channels=(8, 8), norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=3, num_vq_embeddings=16,
    )  # fmt: skip
    return diffusers.LDMPipeline(vqvae=alive(codes), unet=alive(network), scheduler=diffusers.DDIMScheduler(clip_sample=False))


#: Name → what makes the pipeline.
MADE: Mapping[str, Callable[[], DiffusionPipeline]] = {
    "sana-sprint": sana_sprint,
    "sana-controlnet": sana_controlnet,
    "hunyuan-controlnet": hunyuan_controlnet,
    "flux-fill": flux_fill,
    "controlnet-xs": controlnet_xs,
    "pndm": pndm,
    "ldm": ldm,
}

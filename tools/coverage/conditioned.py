"""Micro models of diffusers' pipelines that take pictures, by name: real classes, random weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import diffusers as library
from diffusers import DiffusionPipeline

from tools.coverage.parts import alive, clip, clip_tokenizer, vae

#: Whose classes are typed for models of their own size and kind.
diffusers: Any = library
#: A UNet's and a ControlNet's blocks.
_BLOCKS: Mapping[str, Any] = {
    "block_out_channels": (8, 16), "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "layers_per_block": 1,
    "attention_head_dim": 2, "norm_num_groups": 4,
}  # fmt: skip


#: What SDXL's have beside: sizes among the conditions, and the states of two text encoders.
SIZED: Mapping[str, Any] = {
    "addition_embed_type": "text_time", "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 80,
    "cross_attention_dim": 64,
}  # fmt: skip


#: A ControlNet whose hint embedding halves sides once, as the micro VAE does.
HINTED: Mapping[str, Any] = {**_BLOCKS, "conditioning_embedding_out_channels": (4, 8)}


def unet(**changes: Any) -> Any:  # noqa: ANN401 - fields of its config, and the network
    """Two stages, attention in the inner one."""
    config = {"up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "cross_attention_dim": 32, "sample_size": 32, **_BLOCKS}
    return alive(diffusers.UNet2DConditionModel(**config | changes))


def _ddim() -> Any:  # noqa: ANN401 - a scheduler
    return diffusers.DDIMScheduler(clip_sample=False, steps_offset=1)


def _controlnet(**changes: Any) -> Any:  # noqa: ANN401
    return alive(diffusers.ControlNetModel(**{**HINTED, "cross_attention_dim": 32, **changes}))


def _stable_diffusion(kind: str, **networks: Any) -> DiffusionPipeline:  # noqa: ANN401
    usual = {"vae": vae(), "text_encoder": clip(), "tokenizer": clip_tokenizer(), "scheduler": _ddim()}
    rest = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return getattr(diffusers, kind)(**usual, **rest, **networks)


def stable_diffusion_controlnet(**changes: Any) -> DiffusionPipeline:  # noqa: ANN401
    """A picture steers through a copy of the UNet's first half; `changes` are to its config."""
    return _stable_diffusion("StableDiffusionControlNetPipeline", unet=unet(), controlnet=_controlnet(**changes))


def stable_diffusion_controlnets() -> DiffusionPipeline:
    """Two of them at once."""
    pair = [_controlnet(), _controlnet(conditioning_embedding_out_channels=(8, 8))]
    return _stable_diffusion("StableDiffusionControlNetPipeline", unet=unet(), controlnet=pair)


def stable_diffusion_xl_controlnet() -> DiffusionPipeline:
    """The same with two text encoders and sizes among the conditions."""
    networks = {"unet": unet(**SIZED), "controlnet": _controlnet(**SIZED)}
    return _stable_diffusion_xl("StableDiffusionXLControlNetPipeline", **networks)


def _stable_diffusion_xl(kind: str, **networks: Any) -> DiffusionPipeline:  # noqa: ANN401
    text = {
        "text_encoder": clip(), "tokenizer": clip_tokenizer(),
        "text_encoder_2": clip(projection=True), "tokenizer_2": clip_tokenizer("!"),
    }  # fmt: skip
    return getattr(diffusers, kind)(vae=vae(), scheduler=_ddim(), add_watermarker=False, **text, **networks)


def stable_diffusion_inpaint() -> DiffusionPipeline:
    """A UNet of nine channels: the latent, the mask and the encoded rest of the picture."""
    return _stable_diffusion("StableDiffusionInpaintPipeline", unet=unet(in_channels=9))


def instruct_pix2pix() -> DiffusionPipeline:
    """A UNet of eight channels, the second four of them the picture, and three branches of guidance."""
    return _stable_diffusion("StableDiffusionInstructPix2PixPipeline", unet=unet(in_channels=8))


def stable_diffusion_adapter() -> DiffusionPipeline:
    """Features of a picture, added to the UNet's own in every stage."""
    kinds = {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}
    adapter = alive(diffusers.T2IAdapter(channels=[8, 16], num_res_blocks=1, downscale_factor=2))
    return _stable_diffusion("StableDiffusionAdapterPipeline", unet=unet(**kinds), adapter=adapter)


#: Name → what makes the pipeline.
MADE: Mapping[str, Callable[[], DiffusionPipeline]] = {
    "stable-diffusion-controlnet": stable_diffusion_controlnet,
    "stable-diffusion-controlnets": stable_diffusion_controlnets,
    "stable-diffusion-xl-controlnet": stable_diffusion_xl_controlnet,
    "stable-diffusion-inpaint": stable_diffusion_inpaint,
    "instruct-pix2pix": instruct_pix2pix,
    "stable-diffusion-adapter": stable_diffusion_adapter,
}

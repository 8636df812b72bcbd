"""Micro models of further pipelines with ControlNets, and of inpainting with nine channels: real classes, random weights."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import diffusers as library
from diffusers import DiffusionPipeline

from tools.coverage import conditioned, pipelines, readers
from tools.coverage.parts import alive

#: Whose classes are typed for models of their own size and kind.
diffusers: Any = library
#: What a ControlNet of Qwen-Image shares with its transformer.
_QWEN = (
    "patch_size", "in_channels", "out_channels", "num_layers", "attention_head_dim", "num_attention_heads", "joint_attention_dim",
    "axes_dims_rope",
)  # fmt: skip
#: What pipelines ask about their safety, and SDXL's about a watermark.
_SAID = {"requires_safety_checker": False, "add_watermarker": False}


def under(kind: str, made: DiffusionPipeline, **networks: Any) -> DiffusionPipeline:  # noqa: ANN401 - of diffusers
    """A micro model's networks, and others beside or instead of them, under another pipeline."""
    parts = {**_SAID, **made.components, **networks}
    takes = inspect.signature(getattr(diffusers, kind).__init__).parameters
    return getattr(diffusers, kind)(**{name: parts[name] for name in takes if name in parts})


def _controlled(kind: str, **networks: Any) -> DiffusionPipeline:  # noqa: ANN401
    return under(kind, conditioned.stable_diffusion_controlnet(), **networks)


def _controlled_xl(kind: str, **networks: Any) -> DiffusionPipeline:  # noqa: ANN401
    return under(kind, conditioned.stable_diffusion_xl_controlnet(), **networks)


def stable_diffusion_3_controlnet(kind: str = "StableDiffusion3ControlNetPipeline", **changes: Any) -> DiffusionPipeline:  # noqa: ANN401
    """A ControlNet that sees the encoded picture, and not the pooled text."""
    network = diffusers.SD3ControlNetModel(
        sample_size=32, patch_size=1, in_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=4,
        caption_projection_dim=32, joint_attention_dim=32, pooled_projection_dim=64, out_channels=4,
        **changes,
    )  # fmt: skip
    return under(kind, pipelines.stable_diffusion_3(), controlnet=alive(network))


def flux_controlnet() -> DiffusionPipeline:
    """The same with packed latents."""
    network = diffusers.FluxControlNetModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8), guidance_embeds=True,
    )  # fmt: skip
    parts = {"image_encoder": None, "feature_extractor": None}
    return under("FluxControlNetPipeline", pipelines.flux(guided=True), controlnet=alive(network), **parts)


def flux_control() -> DiffusionPipeline:
    """A transformer of twice as many channels: the latent's, and the encoded picture's."""
    network = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=8, out_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8), guidance_embeds=True,
    )  # fmt: skip
    return under("FluxControlPipeline", pipelines.flux(), transformer=alive(network))


def cogview4_control() -> DiffusionPipeline:
    """CogView4's transformer of twice as many channels: the latent's, and the encoded picture's."""
    made: Any = readers.cogview4()
    network = diffusers.CogView4Transformer2DModel.from_config(made.transformer.config, in_channels=8)
    return under("CogView4ControlPipeline", made, transformer=alive(network))


def qwen_image_controlnet() -> DiffusionPipeline:
    """A ControlNet beside texts of open length, and the VAE of a video."""
    made: Any = readers.qwen_image()
    config = {name: made.transformer.config[name] for name in _QWEN}
    network = diffusers.QwenImageControlNetModel(**{**config, "num_layers": 1})
    return under("QwenImageControlNetPipeline", made, controlnet=alive(network))


def controlnet_union() -> DiffusionPipeline:
    """One ControlNet for pictures of several kinds, which its pipeline's call is told."""
    kinds = {"num_trans_channel": 8, "num_trans_head": 2, "num_proj_channel": 8, "num_control_type": 4}
    network = alive(diffusers.ControlNetUnionModel(**conditioned.HINTED, **conditioned.SIZED, **kinds))
    return _controlled_xl("StableDiffusionXLControlNetUnionPipeline", controlnet=network)


def _filling(kind: str) -> DiffusionPipeline:
    """A UNet of nine channels: the latent, the mask and the encoded rest of the picture; with a ControlNet where there is one."""
    if "XL" in kind:
        return _controlled_xl(kind, unet=conditioned.unet(in_channels=9, **conditioned.SIZED))
    return _controlled(kind, unet=conditioned.unet(in_channels=9))


#: Name → what makes the pipeline.
MADE: Mapping[str, Callable[[], DiffusionPipeline]] = {
    "stable-diffusion-controlnet-pag": partial(_controlled, "StableDiffusionControlNetPAGPipeline"),
    "stable-diffusion-xl-controlnet-pag": partial(_controlled_xl, "StableDiffusionXLControlNetPAGPipeline"),
    "stable-diffusion-3-controlnet": stable_diffusion_3_controlnet,
    "flux-controlnet": flux_controlnet,
    "flux-control": flux_control,
    "stable-diffusion-xl-controlnet-union": controlnet_union,
    "cogview4-control": cogview4_control,
    "qwenimage-controlnet": qwen_image_controlnet,
    "stable-diffusion-3-controlnet-inpaint": partial(
        stable_diffusion_3_controlnet, "StableDiffusion3ControlNetInpaintingPipeline", extra_conditioning_channels=1
    ),
    "stable-diffusion-pag-inpaint": partial(_filling, "StableDiffusionPAGInpaintPipeline"),
    "stable-diffusion-controlnet-inpaint": partial(_filling, "StableDiffusionControlNetInpaintPipeline"),
    "stable-diffusion-controlnet-pag-inpaint": partial(_filling, "StableDiffusionControlNetPAGInpaintPipeline"),
    "stable-diffusion-xl-inpaint": partial(_filling, "StableDiffusionXLInpaintPipeline"),
    "stable-diffusion-xl-pag-inpaint": partial(_filling, "StableDiffusionXLPAGInpaintPipeline"),
    "stable-diffusion-xl-controlnet-inpaint": partial(_filling, "StableDiffusionXLControlNetInpaintPipeline"),
}

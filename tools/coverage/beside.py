"""Micro models of pipelines that stand beside diffusers' lists: without text, with class labels, or made to change a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import diffusers as library
import transformers
from diffusers import DiffusionPipeline

from tools.coverage.conditioned import unet
from tools.coverage.parts import alive, clip, clip_tokenizer, vae

#: Whose classes are typed for models of their own size and kind.
diffusers: Any = library


def _pixels(**changes: Any) -> Any:  # noqa: ANN401 - of its config, and the network
    """A UNet of pixels, without text."""
    config = {
        "sample_size": 32, "layers_per_block": 1, "block_out_channels": (8, 16), "norm_num_groups": 4, "attention_head_dim": 4,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    }  # fmt: skip
    return alive(diffusers.UNet2DModel(**config | changes))


def ddpm() -> DiffusionPipeline:
    """Pixels from noise, and noise in every step."""
    return diffusers.DDPMPipeline(_pixels(), diffusers.DDPMScheduler(clip_sample=False))


def ddim() -> DiffusionPipeline:
    """Pixels from noise alone."""
    return diffusers.DDIMPipeline(_pixels(), diffusers.DDIMScheduler(clip_sample=False))


def score_sde_ve() -> DiffusionPipeline:
    """Pixels by a predictor and a corrector."""
    return diffusers.ScoreSdeVePipeline(_pixels(time_embedding_type="fourier"), diffusers.ScoreSdeVeScheduler())


def consistency() -> DiffusionPipeline:
    """Pixels of a class in one step."""
    network = _pixels(num_class_embeds=10, resnet_time_scale_shift="scale_shift")
    return diffusers.ConsistencyModelPipeline(network, diffusers.CMStochasticIterativeScheduler(clip_denoised=False))


def dit() -> DiffusionPipeline:
    """A transformer of classes."""
    network = diffusers.DiTTransformer2DModel(
        sample_size=16, num_layers=2, patch_size=2, attention_head_dim=8, num_attention_heads=2, in_channels=4, out_channels=8,
        attention_bias=True, num_embeds_ada_norm=1000, norm_type="ada_norm_zero", norm_elementwise_affine=False,
    )  # fmt: skip
    return diffusers.DiTPipeline(alive(network), vae(), diffusers.DDIMScheduler(clip_sample=False))


def upscale() -> DiffusionPipeline:
    """A small picture beside the latent, and how much noise it has as a class."""
    network = unet(in_channels=7, num_class_embeds=1000, only_cross_attention=(False, True))
    noisy = diffusers.DDPMScheduler(beta_schedule="scaled_linear")
    return diffusers.StableDiffusionUpscalePipeline(
        vae(3), clip(), clip_tokenizer(), network, noisy, diffusers.DDIMScheduler(clip_sample=False), max_noise_level=350
    )


def depth_to_image() -> DiffusionPipeline:
    """A picture to start from, and its depth beside the latent."""
    config = transformers.DPTConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8, readout_type="project",
        reassemble_factors=[4, 2, 1, 0.5], is_hybrid=False,
    )  # fmt: skip
    prepared = transformers.DPTImageProcessorPil(size={"height": 32, "width": 32})
    return diffusers.StableDiffusionDepth2ImgPipeline(
        vae(), clip(), clip_tokenizer(), unet(in_channels=5), diffusers.DDIMScheduler(clip_sample=False, steps_offset=1),
        alive(transformers.DPTForDepthEstimation(config)), prepared,
    )  # fmt: skip


def image_variation() -> DiffusionPipeline:
    """CLIP's image tower in the place of the text's."""
    config = transformers.CLIPVisionConfig(
        hidden_size=32, projection_dim=32, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8,
        intermediate_size=37,
    )  # fmt: skip
    prepared = transformers.CLIPImageProcessorPil(crop_size=32, size={"shortest_edge": 32})
    return diffusers.StableDiffusionImageVariationPipeline(
        vae(), alive(transformers.CLIPVisionModelWithProjection(config)), unet(), diffusers.DDIMScheduler(clip_sample=False),
        None, prepared, requires_safety_checker=False,
    )  # fmt: skip


#: Name → what makes the pipeline.
MADE: Mapping[str, Callable[[], DiffusionPipeline]] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "score-sde-ve": score_sde_ve,
    "consistency-model": consistency,
    "dit": dit,
    "stable-diffusion-x4-upscaler": upscale,
    "stable-diffusion-depth2img": depth_to_image,
    "stable-diffusion-image-variation": image_variation,
}

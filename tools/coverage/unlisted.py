"""Micro models of pipelines that stand in none of diffusers' lists: of pixels, of classes, and what changes a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import diffusers as library
import transformers
from diffusers import DiffusionPipeline

from tools.coverage.conditioned import SIZED, unet
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
    """Pixels by a predictor and a corrector, of a network that gives a score: what it answers is divided by the noise level."""
    scheduler = diffusers.ScoreSdeVeScheduler(sigma_max=1.0)  # more of a random network leaves noise, black or white
    return diffusers.ScoreSdeVePipeline(_pixels(time_embedding_type="fourier"), scheduler)


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
        vae(3, scaling_factor=0.08333),
        clip(),
        clip_tokenizer(),
        network,
        noisy,
        diffusers.DDIMScheduler(clip_sample=False),
        max_noise_level=350,
    )


def latent_upscale() -> DiffusionPipeline:
    """A small latent beside the latent, and a step that is computed from the noise's level."""
    crossed = ("KCrossAttnDownBlock2D",) * 3, ("KCrossAttnUpBlock2D",) * 3
    network = diffusers.UNet2DConditionModel(
        act_fn="gelu", attention_head_dim=8, norm_num_groups=None, block_out_channels=(32, 32, 64, 64), time_cond_proj_dim=160,
        conv_in_kernel=1, conv_out_kernel=1, cross_attention_dim=32, in_channels=8, out_channels=5, mid_block_type=None,
        down_block_types=("KDownBlock2D", *crossed[0]), up_block_types=(*crossed[1], "KUpBlock2D"),
        only_cross_attention=False, resnet_time_scale_shift="scale_shift", time_embedding_type="fourier",
        timestep_post_act="gelu", sample_size=32,
    )  # fmt: skip
    scheduler = diffusers.EulerDiscreteScheduler(prediction_type="sample", beta_schedule="scaled_linear")
    return diffusers.StableDiffusionLatentUpscalePipeline(vae(), clip(), clip_tokenizer(), alive(network), scheduler)


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


def refiner() -> DiffusionPipeline:
    """SDXL's refiner: the second text encoder alone, how pretty a picture is as a condition, and a picture to start from."""
    sized = {**SIZED, "cross_attention_dim": 32, "projection_class_embeddings_input_dim": 32 + 5 * 8}
    text = {"text_encoder": None, "tokenizer": None, "text_encoder_2": clip(projection=True), "tokenizer_2": clip_tokenizer("!")}
    return diffusers.StableDiffusionXLImg2ImgPipeline(
        vae(), **text, unet=unet(**sized), scheduler=diffusers.DDIMScheduler(clip_sample=False, steps_offset=1),
        requires_aesthetics_score=True, add_watermarker=False,
    )  # fmt: skip


MADE: Mapping[str, Callable[[], DiffusionPipeline]] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "score-sde-ve": score_sde_ve,
    "consistency-model": consistency,
    "dit": dit,
    "stable-diffusion-x4-upscaler": upscale,
    "stable-diffusion-latent-upscaler": latent_upscale,
    "stable-diffusion-depth2img": depth_to_image,
    "stable-diffusion-xl-refiner": refiner,
    "stable-diffusion-xl-base-and-refiner": refiner,
}

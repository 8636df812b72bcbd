"""Micro models of unCLIP: Stable Diffusion's, of a picture's embedding or of one that a prior draws, and Karlo's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import diffusers as library
import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer

from tools.coverage import conditioned
from tools.coverage.clip_images import PROJECTED, image_encoder, image_processor
from tools.coverage.parts import alive, clip, clip_tokenizer, vae

#: Whose classes are typed for models of their own size and kind.
diffusers: Any = library


def stable_unclip() -> DiffusionPipeline:
    """CLIP's answer to a picture beside the text, normalised and with noise in it."""
    return diffusers.StableUnCLIPImg2ImgPipeline(
        feature_extractor=image_processor(), image_encoder=image_encoder(), **_embedded()
    )  # fmt: skip


def _embedded() -> dict[str, Any]:
    network = conditioned.unet(class_embed_type="projection", projection_class_embeddings_input_dim=2 * PROJECTED)
    return {
        "image_normalizer": alive(StableUnCLIPImageNormalizer(embedding_dim=PROJECTED)),
        "image_noising_scheduler": diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"), "tokenizer": clip_tokenizer(),
        "text_encoder": clip(), "unet": network, "scheduler": diffusers.DDIMScheduler(clip_sample=False), "vae": vae(),
    }  # fmt: skip


def _prior() -> Any:  # noqa: ANN401 - diffusers'
    prior = diffusers.PriorTransformer(num_attention_heads=2, attention_head_dim=8, num_layers=2, embedding_dim=PROJECTED)
    torch.nn.init.ones_(alive(prior).clip_std)
    return prior


def stable_unclip_prior() -> DiffusionPipeline:
    """The same of the embedding that a prior draws of a text."""
    scheduler = diffusers.UnCLIPScheduler(prediction_type="sample", clip_sample_range=5.0)
    return diffusers.StableUnCLIPPipeline(
        prior_tokenizer=clip_tokenizer(), prior_text_encoder=clip(PROJECTED, projection=True), prior=_prior(),
        prior_scheduler=scheduler, **_embedded(),
    )  # fmt: skip


def _karlo() -> dict[str, Any]:
    large: Any = {"sample_size": 32, "in_channels": 6, "block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1}
    large |= {"down_block_types": ("ResnetDownsampleBlock2D",) * 2, "up_block_types": ("ResnetUpsampleBlock2D",) * 2}
    network = diffusers.UNet2DConditionModel(
        sample_size=16, in_channels=3, out_channels=6, block_out_channels=(8, 16), norm_num_groups=4, layers_per_block=1,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"), cross_attention_dim=16,
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"), mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        attention_head_dim=4, resnet_time_scale_shift="scale_shift", class_embed_type="identity",
    )  # fmt: skip
    return {
        "decoder": alive(network), "text_encoder": clip(PROJECTED, projection=True), "tokenizer": clip_tokenizer(),
        "text_proj": alive(UnCLIPTextProjModel(clip_embeddings_dim=PROJECTED, time_embed_dim=32, cross_attention_dim=16)),
        "super_res_first": alive(diffusers.UNet2DModel(**large)), "super_res_last": alive(diffusers.UNet2DModel(**large)),
        "decoder_scheduler": diffusers.UnCLIPScheduler(), "super_res_scheduler": diffusers.UnCLIPScheduler(),
    }  # fmt: skip


def karlo() -> DiffusionPipeline:
    """A prior, a UNet of pixels, and one that enlarges what that draws."""
    return diffusers.UnCLIPPipeline(
        prior=_prior(), prior_scheduler=diffusers.UnCLIPScheduler(prediction_type="sample", clip_sample_range=5.0), **_karlo()
    )


def karlo_variation() -> DiffusionPipeline:
    """The same two UNets, of a picture's embedding."""
    return diffusers.UnCLIPImageVariationPipeline(feature_extractor=image_processor(), image_encoder=image_encoder(), **_karlo())


#: Name → what makes the pipeline.
MADE: Mapping[str, Callable[[], DiffusionPipeline]] = {
    "stable-unclip-img2img": stable_unclip,
    "stable-unclip": stable_unclip_prior,
    "unclip": karlo,
    "unclip-image-variation": karlo_variation,
}

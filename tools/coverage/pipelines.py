"""Micro models of diffusers' pipelines, by name: real classes, random weights, as small as the classes let them be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import diffusers as library
from diffusers import DiffusionPipeline

from tools.coverage.parts import (
    CHAT,
    alive,
    clip,
    clip_tokenizer,
    flow,
    language_model,
    spelling_tokenizer,
    t5,
    t5_tokenizer,
    vae,
)

#: Whose classes are typed for models of their own size and kind.
diffusers: Any = library
#: FLUX.1's and SD3's latents are moved as well as scaled.
SHIFTED: Mapping[str, Any] = {"shift_factor": 0.0609, "scaling_factor": 1.5035}


def pixart_sigma() -> DiffusionPipeline:
    """T5 and a transformer that learned its variance too."""
    network = diffusers.PixArtTransformer2DModel(
        sample_size=16, num_layers=2, patch_size=2, attention_head_dim=8, num_attention_heads=3, caption_channels=32,
        in_channels=4, cross_attention_dim=24, out_channels=8, use_additional_conditions=False,
    )  # fmt: skip
    return diffusers.PixArtSigmaPipeline(
        t5_tokenizer(), t5(), vae(), alive(network), diffusers.DPMSolverMultistepScheduler(algorithm_type="dpmsolver++")
    )


def stable_diffusion_3(channels: int = 4, **changes: Any) -> DiffusionPipeline:  # noqa: ANN401 - of the VAE's config
    """Three text encoders, whose states are joined along tokens and channels."""
    network = diffusers.SD3Transformer2DModel(
        sample_size=32, patch_size=1, in_channels=channels, num_layers=2, attention_head_dim=8, num_attention_heads=4,
        caption_projection_dim=32, joint_attention_dim=32, pooled_projection_dim=64, out_channels=channels,
    )  # fmt: skip
    return diffusers.StableDiffusion3Pipeline(
        transformer=alive(network), scheduler=flow(), vae=vae(**{"latent_channels": channels, **SHIFTED, **changes}),
        text_encoder=clip(projection=True), tokenizer=clip_tokenizer(),
        text_encoder_2=clip(projection=True), tokenizer_2=clip_tokenizer("!"),
        text_encoder_3=t5(), tokenizer_3=t5_tokenizer(),
    )  # fmt: skip


def flux(*, guided: bool = False) -> DiffusionPipeline:
    """Packed latents, and times that depend on the size; `guided` has an input for the guidance scale, as dev has."""
    network = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8), guidance_embeds=guided,
    )  # fmt: skip
    return diffusers.FluxPipeline(
        scheduler=flow(use_dynamic_shifting=True), vae=vae(latent_channels=1, **SHIFTED), transformer=alive(network),
        text_encoder=clip(), tokenizer=clip_tokenizer(), text_encoder_2=t5(), tokenizer_2=t5_tokenizer(),
    )  # fmt: skip


def auraflow() -> DiffusionPipeline:
    """UMT5, and times between 0 and 1."""
    network = diffusers.AuraFlowTransformer2DModel(
        sample_size=16, patch_size=2, in_channels=4, num_mmdit_layers=1, num_single_dit_layers=1, attention_head_dim=8,
        num_attention_heads=4, caption_projection_dim=32, joint_attention_dim=32, out_channels=4, pos_embed_max_size=256,
    )  # fmt: skip
    return diffusers.AuraFlowPipeline(t5_tokenizer(), t5(kind="UMT5"), vae(), alive(network), flow())


def pixart_alpha() -> DiffusionPipeline:
    """PixArt-Σ's networks under the older pipeline."""
    made = pixart_sigma()
    return diffusers.PixArtAlphaPipeline(made.tokenizer, made.text_encoder, made.vae, made.transformer, made.scheduler)


def sana() -> DiffusionPipeline:
    """Gemma 2 with an instruction before the prompt alone, linear attention, and a deep VAE."""
    network = diffusers.SanaTransformer2DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=1, num_cross_attention_heads=2,
        cross_attention_head_dim=8, cross_attention_dim=16, caption_channels=32, sample_size=32,
    )  # fmt: skip
    blocks = ("ResBlock", "EfficientViTBlock")
    autoencoder = diffusers.AutoencoderDC(
        latent_channels=4, attention_head_dim=2, encoder_block_types=blocks, decoder_block_types=blocks,
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1), encoder_qkv_multiscales=((), (5,)), decoder_qkv_multiscales=((), (5,)),
        downsample_block_type="conv", upsample_block_type="interpolate", scaling_factor=0.41407,
    )  # fmt: skip
    scheduler = diffusers.DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, algorithm_type="dpmsolver++"
    )
    return diffusers.SanaPipeline(
        spelling_tokenizer("GemmaTokenizer"), language_model("Gemma2"), alive(autoencoder), alive(network), scheduler
    )


def chroma() -> DiffusionPipeline:
    """FLUX.1's shape, with a mask of the text and real guidance."""
    network = diffusers.ChromaTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, axes_dims_rope=(4, 4, 8), approximator_hidden_dim=32, approximator_layers=1,
        approximator_num_channels=16,
    )  # fmt: skip
    return diffusers.ChromaPipeline(flow(), vae(latent_channels=1, **SHIFTED), t5(), t5_tokenizer(), alive(network))


def lumina2() -> DiffusionPipeline:
    """Gemma 2 with a system prompt before the prompt alone; its pipeline asks for 8 pixels per cell."""
    network = diffusers.Lumina2Transformer2DModel(
        sample_size=4, patch_size=2, in_channels=4, hidden_size=24, num_layers=2, num_refiner_layers=1, num_attention_heads=3,
        num_kv_heads=1, multiple_of=2, axes_dim_rope=(4, 2, 2), axes_lens=(300, 128, 128), cap_feat_dim=32,
    )  # fmt: skip
    return diffusers.Lumina2Pipeline(
        alive(network), flow(), vae(4, **SHIFTED), language_model("Gemma2"), spelling_tokenizer("GemmaTokenizer")
    )


def cogview3() -> DiffusionPipeline:
    """T5, and sizes among the conditions."""
    network = diffusers.CogView3PlusTransformer2DModel(
        patch_size=2, in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=4, out_channels=4,
        text_embed_dim=32, time_embed_dim=8, condition_dim=2, pos_embed_max_size=32, sample_size=16,
    )  # fmt: skip
    return diffusers.CogView3PlusPipeline(t5_tokenizer(), t5(), vae(), alive(network), diffusers.CogVideoXDDIMScheduler())


def ovis() -> DiffusionPipeline:
    """Qwen 3 with the template of a chat."""
    network = diffusers.OvisImageTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, axes_dims_rope=(4, 4, 8), out_channels=16,
    )  # fmt: skip
    tokenizer = spelling_tokenizer("Qwen2Tokenizer", CHAT)
    return diffusers.OvisImagePipeline(flow(), vae(**SHIFTED), language_model("Qwen3"), tokenizer, alive(network))


#: Name → what makes the pipeline.
MADE: Mapping[str, Callable[[], DiffusionPipeline]] = {
    "stable-diffusion-3": stable_diffusion_3,
    "pixart-alpha": pixart_alpha,
    "pixart-sigma": pixart_sigma,
    "sana": sana,
    "auraflow": auraflow,
    "flux": flux,
    "flux-guided": partial(flux, guided=True),
    "lumina2": lumina2,
    "chroma": chroma,
    "cogview3": cogview3,
    "ovis": ovis,
}

"""Micro models whose denoiser is a UNet, and of pipelines that perturb attention."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import diffusers as library
from diffusers import DiffusionPipeline

from tools.coverage import pipelines
from tools.coverage.parts import alive, bert, clip, clip_tokenizer, t5, t5_tokenizer, vae

#: Whose classes are typed for models of their own size and kind.
diffusers: Any = library


def unet(**changes: Any) -> Any:  # noqa: ANN401 - of its config, and diffusers'
    """Two stages, attention in the inner one."""
    config = {
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "cross_attention_dim": 32,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
        "sample_size": 32,
    }
    return alive(diffusers.UNet2DConditionModel(**config | changes))


def stable_diffusion(kind: str = "StableDiffusionPipeline", **changes: Any) -> DiffusionPipeline:  # noqa: ANN401 - of the UNet's config
    """One text encoder, of which the last state is taken."""
    scheduler = diffusers.DDIMScheduler(clip_sample=False, steps_offset=1)
    return getattr(diffusers, kind)(
        vae(), clip(), clip_tokenizer(), unet(**changes), scheduler, None, None, requires_safety_checker=False
    )


def stable_diffusion_xl(kind: str = "StableDiffusionXLPipeline") -> DiffusionPipeline:
    """Two text encoders, a pooled state and sizes."""
    network = unet(
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=6 * 8 + 32,
        cross_attention_dim=64, transformer_layers_per_block=(1, 2), use_linear_projection=True,
    )  # fmt: skip
    return getattr(diffusers, kind)(
        vae(), clip(), clip(projection=True), clip_tokenizer(), clip_tokenizer("!"), network, diffusers.EulerDiscreteScheduler(),
        add_watermarker=False,
    )  # fmt: skip


def latent_consistency() -> DiffusionPipeline:
    """Stable Diffusion's networks with an input for the guidance scale."""
    made = stable_diffusion(time_cond_proj_dim=8)
    parts = {**made.components, "scheduler": diffusers.LCMScheduler(clip_sample=False)}
    return diffusers.LatentConsistencyModelPipeline(**parts, requires_safety_checker=False)


def kandinsky3() -> DiffusionPipeline:
    """T5 with masked states, and a decoder called movq."""
    network = diffusers.Kandinsky3UNet(
        in_channels=4, time_embedding_dim=4, groups=2, attention_head_dim=4, layers_per_block=3,
        block_out_channels=(8, 16, 32, 64), cross_attention_dim=4, encoder_hid_dim=32,
    )  # fmt: skip
    movq = diffusers.VQModel(
        block_out_channels=(32,) * 4, down_block_types=("DownEncoderBlock2D",) * 3 + ("AttnDownEncoderBlock2D",),
        latent_channels=4, norm_num_groups=4, norm_type="spatial", num_vq_embeddings=12,
        up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * 3, vq_embed_dim=4,
    )  # fmt: skip
    scheduler = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=False)
    return diffusers.Kandinsky3Pipeline(t5_tokenizer(), t5(), alive(network), scheduler, alive(movq))


def hunyuan() -> DiffusionPipeline:
    """BERT and T5, encoded by two calls; blocks with skips between them, as a UNet has."""
    network = diffusers.HunyuanDiT2DModel(
        sample_size=16, num_layers=2, patch_size=2, attention_head_dim=8, num_attention_heads=3, in_channels=4,
        cross_attention_dim=32, cross_attention_dim_t5=32, pooled_projection_dim=16, hidden_size=24,
    )  # fmt: skip
    encoder, tokenizer = bert()
    return diffusers.HunyuanDiTPipeline(
        vae(4), encoder, tokenizer, alive(network), diffusers.DDPMScheduler(clip_sample=False), None, None,
        requires_safety_checker=False, text_encoder_2=t5(), tokenizer_2=t5_tokenizer(),
    )  # fmt: skip


def perturbed(make: Callable[[], DiffusionPipeline]) -> DiffusionPipeline:
    """A pipeline's networks under the one that perturbs their attention."""
    made = make()
    kind = getattr(diffusers, type(made).__name__.replace("Pipeline", "PAGPipeline"))
    takes = inspect.signature(kind.__init__).parameters
    return kind(**{part: made.components[part] for part in made.components if part in takes})


_PERTURBED = {
    "stable-diffusion-3": pipelines.stable_diffusion_3,
    "pixart-sigma": pipelines.pixart_sigma,
    "sana": pipelines.sana,
    "hunyuan": hunyuan,
}
#: Name → what makes the pipeline.
MADE: Mapping[str, Callable[[], DiffusionPipeline]] = {
    "stable-diffusion": stable_diffusion,
    "stable-diffusion-xl": stable_diffusion_xl,
    "lcm": latent_consistency,
    "kandinsky3": kandinsky3,
    "hunyuan": hunyuan,
    "stable-diffusion-pag": partial(stable_diffusion, "StableDiffusionPAGPipeline"),
    "stable-diffusion-xl-pag": partial(stable_diffusion_xl, "StableDiffusionXLPAGPipeline"),
    **{f"{name}-pag": partial(perturbed, make) for name, make in _PERTURBED.items()},
}

"""Micro models that denoise pixels, without an autoencoder: real classes, random weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import diffusers as library
from diffusers import DiffusionPipeline

from tools.coverage.parts import alive, flow, language_model, spelling_tokenizer, t5, t5_tokenizer

#: Whose classes are typed for models of their own size and kind.
diffusers: Any = library


def deepfloyd_if() -> DiffusionPipeline:
    """T5, and a UNet of three channels that predicts a variance too, which its scheduler, here of a fixed one, leaves."""
    network = diffusers.UNet2DConditionModel(
        sample_size=32, in_channels=3, out_channels=6, layers_per_block=1, block_out_channels=(8, 32),
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"), cross_attention_dim=32, encoder_hid_dim=32,
        attention_head_dim=8, norm_num_groups=4, addition_embed_type="text", addition_embed_type_num_heads=2,
        cross_attention_norm="group_norm", resnet_time_scale_shift="scale_shift", act_fn="gelu",
    )  # fmt: skip
    scheduler = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2", variance_type="fixed_small", clip_sample=False)
    return diffusers.IFPipeline(t5_tokenizer(), t5(), alive(network), scheduler, None, None, None, requires_safety_checker=False)


def prx_pixel() -> DiffusionPipeline:
    """Qwen 3, and a transformer of pixels that answers with the clean picture; it starts from twice the usual noise."""
    network = diffusers.PRXTransformer2DModel(
        in_channels=3, patch_size=4, context_in_dim=32, hidden_size=32, mlp_ratio=2.0, num_heads=2, depth=2, axes_dim=[8, 8],
        bottleneck_size=16, resolution_embeds=True,
    )  # fmt: skip
    text = language_model("Qwen3"), spelling_tokenizer("Qwen2Tokenizer")
    return diffusers.PRXPixelPipeline(alive(network), flow(shift=3.0), *text, prompt_max_tokens=64)


#: Name → what makes the pipeline.
MADE: Mapping[str, Callable[[], DiffusionPipeline]] = {"if": deepfloyd_if}

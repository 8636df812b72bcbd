"""Bria's pipelines of micro size: T5 beside FLUX.1's blocks, and every state of a language model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import diffusers as library
from diffusers import DiffusionPipeline

from tools.coverage.parts import alive, flow, language_model, spelling_tokenizer, t5, t5_tokenizer, vae

#: Whose classes are typed for models of their own size and kind.
diffusers: Any = library
#: The id that Fibo reads for an empty text, and as many ids as there must be for it.
_EMPTY, _IDS = 128_000, 128_256


def bria() -> DiffusionPipeline:
    """T5, whose states are filled up with zeros, and FLUX.1's blocks without what T5 is joined to."""
    network = diffusers.BriaTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    scheduler = flow(use_dynamic_shifting=True)
    return diffusers.BriaPipeline(alive(network), scheduler, vae(shift_factor=0.0), t5(), t5_tokenizer())


def video_vae(downsampled: int = 3, patch: int = 2) -> Any:  # noqa: ANN401 - diffusers'
    """Wan 2.2's VAE of videos, of one frame; so many of its stages halve the sides, and a patch has so many pixels a side."""
    return alive(
        diffusers.AutoencoderKLWan(
            base_dim=8, z_dim=4, dim_mult=[1] + [2] * downsampled, num_res_blocks=1,
            temperal_downsample=[False] * downsampled, latents_mean=[0.1] * 4, latents_std=[1.1, 0.9, 1.2, 1.0],
            is_residual=True, patch_size=patch, in_channels=3 * patch**2, out_channels=3 * patch**2,
            scale_factor_spatial=2**downsampled * patch,
        )
    )  # fmt: skip


def fibo(kind: str = "BriaFiboPipeline") -> DiffusionPipeline:
    """Every state of a language model, of which each block has its own and the last ones share the last."""
    network = diffusers.BriaFiboTransformer2DModel(
        in_channels=4, num_layers=2, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=64, axes_dims_rope=(4, 4, 8), text_encoder_dim=32,
    )  # fmt: skip
    reader = language_model("SmolLM3", head="ForCausalLM", vocab_size=_IDS, bos_token_id=_EMPTY, eos_token_id=1)
    tokenizer = spelling_tokenizer("Qwen2Tokenizer", at={"<|begin_of_text|>": _EMPTY})
    scheduler = flow(use_dynamic_shifting=True)
    return getattr(diffusers, kind)(alive(network), scheduler, video_vae(), reader, tokenizer)


#: Name → what makes the pipeline.
MADE: Mapping[str, Callable[[], DiffusionPipeline]] = {
    "bria": bria,
    "bria-fibo": fibo,
}

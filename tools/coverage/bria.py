"""Bria's pipelines of micro size: T5 beside FLUX.1's blocks, every state of a language model, and six times three of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import diffusers as library
from diffusers import DiffusionPipeline
from diffusers.pipelines.bria_fibo2 import pipeline_bria_fibo2

from tools.coverage import processors, readers
from tools.coverage.parts import alive, flow, language_model, qwen_vl, spelling_tokenizer, t5, t5_tokenizer, vae

#: Whose classes are typed for models of their own size and kind.
diffusers: Any = library
#: The id that Fibo reads for an empty text, and as many ids as there must be for it.
_EMPTY, _IDS = 128_000, 128_256
#: Layers of a language model whose states Fibo 2 takes, three at a time.
_LAYERS = ((0, 1, 2),) * 6


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


def fibo2() -> DiffusionPipeline:
    """Qwen 3 VL, of which the network makes more tokens of a longer text, up to a number.

    Which states of it are taken is a number in diffusers' code, up to the 35th: here they are those of two layers.
    """
    pipeline_bria_fibo2.TEXT_ENCODER_OUT_LAYERS = _LAYERS
    network = diffusers.BriaFibo2Transformer2DModel(
        in_channels=4, dim=32, n_layers=6, n_refiner_layers=1, n_heads=2, cap_feat_dim=96, injection_layer_ids=(1, 2, 3, 4, 5),
        perceiver_num_layers=1, min_num_gist_tokens=8, max_num_gist_tokens=32, gist_step=4, gist_min_text_len=16,
        gist_max_text_len=128, axes_dims=(8, 4, 4), axes_lens=(64, 64, 64),
    )  # fmt: skip
    autoencoder = readers.flux2_klein().vae
    reader = qwen_vl("Qwen3VL")
    processor = processors.processor("Qwen3VLProcessor", processors.QWEN)
    return diffusers.BriaFibo2Pipeline(alive(network), flow(use_dynamic_shifting=True), autoencoder, reader, processor)


#: Name → what makes the pipeline.
MADE: Mapping[str, Callable[[], DiffusionPipeline]] = {
    "bria": bria,
    "bria-fibo": fibo,
    "bria-fibo2": fibo2,
}

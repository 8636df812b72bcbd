"""DreamLite of micro size: a pruned UNet over the picture and a blank beside it, a tiny VAE, and Qwen 3 VL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import diffusers as library
from diffusers import DiffusionPipeline

from tools.coverage.parts import CHAT, alive, flow, qwen_vl, spelling_tokenizer
from tools.coverage.processors import processor

#: Whose classes are typed for models of their own size and kind.
diffusers: Any = library


def dreamlite(kind: str = "DreamLitePipeline") -> DiffusionPipeline:
    """The pipeline of 30 steps, which guides, or the distilled one of four, which does not."""
    network = diffusers.DreamLiteUNetModel(
        block_out_channels=(8, 16, 16), layers_per_block=1, cross_attention_dim=32, attention_head_dim=4, norm_num_groups=4,
        sample_size=32, addition_embed_type="time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=16,
    )  # fmt: skip
    autoencoder = diffusers.AutoencoderTiny(
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1), latent_channels=4,
    )  # fmt: skip
    tokenizer = spelling_tokenizer("Qwen2Tokenizer", CHAT)
    return getattr(diffusers, kind)(
        qwen_vl("Qwen3VL"), tokenizer, processor("Qwen3VLProcessor", CHAT), alive(autoencoder), alive(network),
        flow(use_dynamic_shifting=True),
    )  # fmt: skip


#: Name → what makes the pipeline.
MADE: Mapping[str, Callable[[], DiffusionPipeline]] = {
    "dreamlite": dreamlite,
    "dreamlite-mobile": partial(dreamlite, "DreamLiteMobilePipeline"),
}

"""JoyImage's pipelines of micro size, which draw and change pictures of a million pixels alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import diffusers as library
import transformers
from diffusers import DiffusionPipeline

from exporter.families.tracing.texts import text_processors
from tools.coverage import bria, processors
from tools.coverage.parts import CHAT, alive, flow, qwen_vl, spelling_tokenizer

#: Whose classes are typed for models of their own size and kind.
diffusers: Any = library


def joyimage(kind: str = "JoyImageEdit") -> DiffusionPipeline:
    """Qwen 3 VL's last layer before its norm, latents with an axis of pictures, and 32 pixels to a cell's side."""
    network = getattr(diffusers, f"{kind}Transformer3DModel")(
        in_channels=4, hidden_size=32, num_attention_heads=2, text_dim=32, num_layers=2, rope_dim_list=[4, 6, 6], theta=10000
    )
    places = processors.PLACES
    tokenizer = spelling_tokenizer("Qwen2Tokenizer", CHAT, places)
    reader = qwen_vl("Qwen3VL", image_token=tokenizer.convert_tokens_to_ids(places[1]))
    pictures = transformers.Qwen2VLImageProcessorPil(size={"shortest_edge": 4 * 32**2, "longest_edge": 30 * 32**2})
    both = text_processors.pictured("Qwen3VLProcessor", pictures, tokenizer, processors.QWEN)
    autoencoder = bria.video_vae(2, patch=8)
    return getattr(diffusers, f"{kind}Pipeline")(flow(shift=4.0), autoencoder, reader, tokenizer, alive(network), both)


#: Name → what makes the pipeline.
MADE: Mapping[str, Callable[[], DiffusionPipeline]] = {
    "joyimage-edit": joyimage,
    "joyimage-edit-pictured": joyimage,
    "joyimage-edit-plus": partial(joyimage, "JoyImageEditPlus"),
}

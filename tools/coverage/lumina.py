"""A micro model of Lumina-Next: real classes, random weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import diffusers as library
from diffusers import DiffusionPipeline

from tools.coverage.parts import alive, flow, language_model, spelling_tokenizer, vae

#: Whose classes are typed for models of their own size and kind.
diffusers: Any = library


def lumina() -> DiffusionPipeline:
    """Gemma, a negative prompt as long as the prompt, and guidance of three channels; its pipeline asks for 8 pixels per cell.

    Texts are padded on the right: on the left, where padding sees nothing, torch's states of it are zeros and ONNX's are not.
    """
    tokenizer = spelling_tokenizer("GemmaTokenizer")
    tokenizer.padding_side = tokenizer.init_kwargs["padding_side"] = "right"
    network = diffusers.LuminaNextDiT2DModel(
        sample_size=4, patch_size=2, in_channels=4, hidden_size=32, num_layers=2, num_attention_heads=4, num_kv_heads=2,
        multiple_of=16, cross_attention_dim=32, learn_sigma=True,
    )  # fmt: skip
    return diffusers.LuminaPipeline(alive(network), flow(), vae(4), language_model("Gemma"), tokenizer)


#: Name → what makes the pipeline.
MADE: Mapping[str, Callable[[], DiffusionPipeline]] = {"lumina": lumina}

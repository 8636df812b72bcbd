"""A micro model of LongCat-Image: texts of a fixed length between ids of a template, over FLUX.1's shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import diffusers as library
from diffusers import DiffusionPipeline

from tools.coverage.parts import CHAT, alive, flow, qwen_vl, spelling_tokenizer, vae
from tools.coverage.pipelines import SHIFTED
from tools.coverage.processors import PLACES, QWEN, picture_processor, processor

#: Whose classes are typed for models of their own size and kind.
diffusers: Any = library
#: Signs that are one token but where they are quoted.
MERGES = (("e", "d"), ("l", "u"), ("lu", "e"))


def longcat_image() -> DiffusionPipeline:
    """Qwen 2.5 VL, whose ids the pipeline joins itself, what is quoted by single characters; and guidance that keeps a norm."""
    network = diffusers.LongCatImageTransformer2DModel(
        patch_size=1, in_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=[4, 6, 6],
    )  # fmt: skip
    return diffusers.LongCatImagePipeline(
        flow(use_dynamic_shifting=True), vae(latent_channels=16, **SHIFTED), qwen_vl("Qwen2_5_VL"),
        spelling_tokenizer("Qwen2Tokenizer", CHAT, merges=MERGES), processor("Qwen2VLProcessor", QWEN), alive(network),
    )  # fmt: skip


def longcat_image_edit() -> DiffusionPipeline:
    """The same networks under the pipeline whose text encoder sees the picture too."""
    made: Any = longcat_image()
    tokenizer = spelling_tokenizer("Qwen2Tokenizer", CHAT, PLACES)
    reader = qwen_vl("Qwen2_5_VL", image_token=tokenizer.convert_tokens_to_ids(PLACES[1]))
    return diffusers.LongCatImageEditPipeline(
        made.scheduler, made.vae, reader, tokenizer, picture_processor(tokenizer), made.transformer
    )


#: Name → what makes the pipeline.
MADE: Mapping[str, Callable[[], DiffusionPipeline]] = {
    "longcat-image": longcat_image,
    "longcat-image-edit": longcat_image_edit,
}

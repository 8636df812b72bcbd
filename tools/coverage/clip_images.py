"""CLIP's tower of images, and what prepares pictures for it, as micro models have them."""

from __future__ import annotations

from typing import Any

import transformers

from tools.coverage.parts import alive

#: Pixels of a side that the image encoder sees, and how wide its states and its answer are.
SIDE, WIDTH, PROJECTED = 32, 32, 16


def image_encoder() -> Any:  # noqa: ANN401 - transformers'
    """CLIP's image tower of two layers, with its projection."""
    config = transformers.CLIPVisionConfig(
        hidden_size=WIDTH, projection_dim=PROJECTED, num_hidden_layers=2, num_attention_heads=4, image_size=SIDE, patch_size=8,
        intermediate_size=37,
    )  # fmt: skip
    return alive(transformers.CLIPVisionModelWithProjection(config))


def image_processor() -> Any:  # noqa: ANN401 - transformers'
    """What prepares its pictures."""
    return transformers.CLIPImageProcessorPil(crop_size=SIDE, size={"shortest_edge": SIDE})

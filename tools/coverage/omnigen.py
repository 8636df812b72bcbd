"""A micro model of OmniGen: one transformer that reads the text's ids, a picture's latents and the noise in one sequence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import diffusers as library
from diffusers import DiffusionPipeline
from diffusers.pipelines.omnigen import pipeline_omnigen as own_pipeline
from diffusers.pipelines.omnigen import processor_omnigen as own_processor

from tools.coverage.parts import VOCABULARY, alive, flow, spelling_tokenizer, vae

#: Whose classes are typed for models of their own size and kind.
diffusers: Any = library
pipeline_omnigen: Any = own_pipeline
processor_omnigen: Any = own_processor


def _without_torchvision() -> None:
    """Let diffusers have what reads its texts, which imports torchvision for pictures alone."""
    processor_omnigen.transforms = SimpleNamespace(**dict.fromkeys(("Compose", "Lambda", "ToTensor", "Normalize"), _nothing))
    pipeline_omnigen.OmniGenMultiModalProcessor = processor_omnigen.OmniGenMultiModalProcessor


def _nothing(*_: Any, **__: Any) -> None:  # noqa: ANN401 - torchvision's
    """In the place of what prepares a picture."""


def omnigen() -> DiffusionPipeline:
    """Guidance that is never off, against a negative prompt of its own, and flow that runs the other way."""
    if not hasattr(processor_omnigen, "transforms"):
        _without_torchvision()
    network = diffusers.OmniGenTransformer2DModel(
        in_channels=4, patch_size=2, hidden_size=32, num_attention_heads=2, num_key_value_heads=1, intermediate_size=48,
        num_layers=2, pad_token_id=0, vocab_size=VOCABULARY, time_step_dim=16, pos_embed_max_size=32,
        rope_scaling={"long_factor": [1.0 + place / 8 for place in range(8)], "short_factor": [1.0] * 8},
    )  # fmt: skip
    return diffusers.OmniGenPipeline(
        alive(network), flow(invert_sigmas=True, num_train_timesteps=1), vae(4), spelling_tokenizer("GemmaTokenizer")
    )


#: Name → what makes the pipeline.
MADE: Mapping[str, Callable[[], DiffusionPipeline]] = {"omnigen": omnigen}

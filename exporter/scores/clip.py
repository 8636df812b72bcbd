"""CLIP score, and what is one with other weights, such as PickScore."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
from pydantic import Field, PrivateAttr, ValidationInfo, model_validator

from engines.strict import Frozen
from exporter.models.dual_encoder import DualEncoder
from exporter.scores import root_of

__all__ = ["Clip"]


class Clip(Frozen):
    """How well a picture fits its prompt: 100 times the cosine between both, as a pair of encoders sees them.

    Hessel et al., *CLIPScore* (2021). With weights that were trained on what people prefer, such as PickScore's (Kirstain et al.,
    *Pick-a-Pic*, 2023), it says that.
    """

    label: ClassVar[str] = "CLIP score"
    higher_is_better: ClassVar[bool] = True
    compares: ClassVar[bool] = False

    model: str = Field(
        min_length=1,
        description="a folder, or a hub id, of a pair of encoders: openai/clip-vit-large-patch14, yuvalkirstain/PickScore_v1",
    )
    processor: str | None = Field(
        default=None,
        min_length=1,
        description="where its tokenizer and image processor are, such as laion/CLIP-ViT-H-14-laion2B-s32B-b79K, if not there",
    )
    revision: str | None = Field(default=None, description="of the model, on the hub")
    _encoder: DualEncoder = PrivateAttr()

    @model_validator(mode="after")
    def _found(self, about: ValidationInfo) -> Self:
        self._encoder = DualEncoder.find(self.model, self.processor, self.revision, root_of(about))
        return self

    @cached_property
    def digest(self) -> str:
        """Of the weights, and of what prepares their inputs."""
        return self._encoder.digest

    def of(self, images: np.ndarray, prompts: Sequence[str], reference: np.ndarray | None) -> Sequence[float]:  # noqa: ARG002 - a score's
        """A number a picture, in [-100, 100]."""
        return (100 * (self._encoder.pictures(images) * self._encoder.texts(prompts)).sum(1)).tolist()

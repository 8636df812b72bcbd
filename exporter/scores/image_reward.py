"""ImageReward: how much people like a picture for its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
from pydantic import Field, PrivateAttr, ValidationInfo, model_validator

from engines.strict import Frozen
from exporter.models.blip_reward import BlipReward
from exporter.scores import root_of

__all__ = ["ImageReward"]


class ImageReward(Frozen):
    """How much people like a picture for its prompt: near 0 in the mean over pictures of many models, with a deviation near 1.

    Xu et al., *ImageReward: Learning and Evaluating Human Preferences for Text-to-Image Generation* (2023). Its published weights
    are read as they are, without its package; of a pickle nothing but tensors is taken.
    """

    label: ClassVar[str] = "ImageReward"
    higher_is_better: ClassVar[bool] = True
    compares: ClassVar[bool] = False

    model: str = Field(
        default="zai-org/ImageReward",
        min_length=1,
        description="a hub id, a folder, or the file ImageReward.pt or one of its tensors in .safetensors",
    )
    processor: str | None = Field(
        default=None, min_length=1, description="where its tokenizer is, if not there; else google-bert/bert-base-uncased"
    )
    revision: str | None = Field(default=None, description="of the model, on the hub")
    _judge: BlipReward = PrivateAttr()

    @model_validator(mode="after")
    def _found(self, about: ValidationInfo) -> Self:
        self._judge = BlipReward.find(self.model, self.processor, self.revision, root_of(about))
        return self

    @cached_property
    def digest(self) -> str:
        """Of the weights, their config and the tokenizer."""
        return self._judge.digest

    def of(self, images: np.ndarray, prompts: Sequence[str], reference: np.ndarray | None) -> Sequence[float]:  # noqa: ARG002 - a score's
        """A number a picture."""
        return self._judge.scores(images, prompts).tolist()

"""CMMD: how far the pictures, as a whole, are from other pictures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar, Self

import numpy as np
from pydantic import Field, PrivateAttr, ValidationInfo, model_validator

from exporter.models.dual_encoder import DualEncoder
from exporter.scores import root_of
from exporter.scores._discrepancy import shares
from exporter.scores._sets import AgainstPictures

__all__ = ["Cmmd"]

#: Of the kernel, and what the distance is multiplied by: Jayasumana et al. (2024), section 4.
_SIGMA, _SCALE = 10.0, 1000.0


class Cmmd(AgainstPictures):
    """How far the pictures, as a whole, are from others, as CLIP sees them: the maximum mean discrepancy, times 1000.

    Jayasumana et al., *Rethinking FID* (2024), in the estimate that is 0 in the mean for pictures of the same kind, however few
    there are; theirs adds at most 20 / N. A picture's number is its share: their mean is the distance, and intervals follow.
    """

    label: ClassVar[str] = "CMMD"
    higher_is_better: ClassVar[bool] = False

    model: str = Field(
        min_length=1,
        default="openai/clip-vit-large-patch14-336",
        description="a folder, or a hub id, of a pair of encoders as CLIP's",
    )
    revision: str | None = Field(default=None, description="of the model, on the hub")
    _encoder: DualEncoder = PrivateAttr()

    @model_validator(mode="after")
    def _found(self, about: ValidationInfo) -> Self:
        self._encoder = DualEncoder.find(self.model, None, self.revision, root_of(about))
        return self

    @cached_property
    def digest(self) -> str:
        """Of the weights, and of the pictures that are compared with."""
        return self.digest_of(self._encoder.digest)

    def of(self, images: np.ndarray, prompts: Sequence[str], reference: np.ndarray | None) -> Sequence[float]:  # noqa: ARG002 - a score's
        """Each picture's share of the distance.

        Raises:
            UnsupportedError: there is one picture only.

        """
        sets = self.rows(self._encoder.pictures, self._encoder.digest, images, reference)
        return (_SCALE * shares(*sets, _gaussian)).tolist()


def _gaussian(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    squared = (one**2).sum(1)[:, None] + (other**2).sum(1) - 2 * one @ other.T
    return np.exp(-squared / (2 * _SIGMA**2))

"""CMMD: how far the pictures, as a whole, are from other pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from PIL import Image
from pydantic import Field, PrivateAttr, ValidationInfo, model_validator

from engines.errors import UnsupportedError
from engines.strict import Frozen
from exporter.models.dual_encoder import DualEncoder
from exporter.scores import root_of

__all__ = ["Cmmd"]

#: Of the kernel, and what the distance is multiplied by: Jayasumana et al. (2024), section 4.
_SIGMA, _SCALE = 10.0, 1000.0
_PICTURES = (".png", ".jpg", ".jpeg", ".webp")


class Cmmd(Frozen):
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
    reference: str | None = Field(
        default=None, min_length=1, description="folder of pictures to compare with; the base's or the source's by default"
    )
    _encoder: DualEncoder = PrivateAttr()
    _files: tuple[Path, ...] = PrivateAttr(default=())

    @model_validator(mode="after")
    def _found(self, about: ValidationInfo) -> Self:
        root = root_of(about)
        self._encoder = DualEncoder.find(self.model, None, self.revision, root)
        if self.reference is not None:
            self._files = tuple(file for file in sorted((root / self.reference).glob("*")) if file.suffix.lower() in _PICTURES)
            if len(self._files) < 2:
                raise UnsupportedError(
                    f"reference: {root / self.reference} has {len(self._files)} pictures; a distance takes two at least."
                )
        return self

    @property
    def compares(self) -> bool:
        """Whether it needs the reference's pictures."""
        return self.reference is None

    @cached_property
    def digest(self) -> str:
        """Of the weights, and of the pictures that are compared with."""
        total = hashlib.sha256(self._encoder.digest.encode())
        for file in self._files:
            total.update(hashlib.sha256(file.read_bytes()).digest())
        return total.hexdigest()

    def of(self, images: np.ndarray, prompts: Sequence[str], reference: np.ndarray | None) -> Sequence[float]:  # noqa: ARG002 - a score's
        """Each picture's share of the distance.

        Raises:
            UnsupportedError: there is one picture only.

        """
        if len(images) < 2:
            raise UnsupportedError("CMMD is a distance between many pictures, and there is one. Give more prompts.")
        own = self._encoder.pictures(images)
        others = self._others if reference is None else self._encoder.pictures(reference)
        return shares(own, others).tolist()

    @cached_property
    def _others(self) -> np.ndarray:
        """Directions of the folder's pictures, which may differ in size."""
        return np.concatenate([self._encoder.pictures(np.asarray(Image.open(file).convert("RGB"))[None]) for file in self._files])


def shares(own: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Of each row of `own` (N, width): the numbers whose mean is the unbiased squared MMD from `others` (M, width), scaled."""
    within, between, beyond = (_kernel(one, other) for one, other in ((own, own), (own, others), (others, others)))
    count, most = len(own), len(others)
    alike = (within.sum(1) - 1) / (count - 1)
    theirs = (beyond.sum() - most) / (most * (most - 1))
    return _SCALE * (alike - 2 * between.mean(1) + theirs)


def _kernel(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    squared = (one**2).sum(1)[:, None] + (other**2).sum(1) - 2 * one @ other.T
    return np.exp(-squared / (2 * _SIGMA**2))

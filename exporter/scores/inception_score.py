"""Inception score: how sure a classifier is of each picture, and how many classes it sees in all."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

import numpy as np
from pydantic import Field

from exporter.scores._sets import JudgedByNetwork

__all__ = ["InceptionScore"]


class InceptionScore(JudgedByNetwork):
    """How sure a classifier is of each picture, and how many classes it sees in all: the exponential of their information.

    Salimans et al., *Improved Techniques for Training GANs* (2016), of all pictures at once, and not the mean over ten parts.
    A picture's number is the score and what the picture changes of it, to first order: their mean is the score.
    """

    label: ClassVar[str] = "Inception score"
    higher_is_better: ClassVar[bool] = True
    compares: ClassVar[bool] = False
    classifies: ClassVar[bool] = True

    model: str = Field(
        min_length=1,
        description="a classifier: StyleGAN2-ADA's inception-2015-12-05.pt, any other TorchScript file from uint8 pictures "
        "(N, 3, height, width) to probabilities, or a folder or hub id, such as google/vit-base-patch16-224",
    )

    @cached_property
    def digest(self) -> str:
        """Of the weights, and of what prepares their inputs."""
        return self._network.digest

    def notes(self, count: int) -> list[str]:
        """How it is told of so many pictures."""
        return [f"{self.label}: {count} pictures in one part, seen by {self.model}, {self._network.preparation}."]

    def of(self, images: np.ndarray, prompts: Sequence[str], reference: np.ndarray | None) -> Sequence[float]:  # noqa: ARG002 - a score's
        """Each picture's number.

        Raises:
            UnsupportedError: what the network gives are no probabilities.

        """
        return shares(self._network.probabilities(images)).tolist()


def shares(classes: np.ndarray) -> np.ndarray:
    """Of each row of probabilities (N, classes): the numbers whose mean is the score."""
    told = np.log(np.maximum(classes, np.finfo(np.float64).tiny)) - np.log(np.maximum(classes.mean(0), np.finfo(np.float64).tiny))
    each = (classes * told).sum(1)  # a class of no probability adds nothing
    return np.exp(each.mean()) * (1 + each - each.mean())

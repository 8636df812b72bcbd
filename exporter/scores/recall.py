"""Recall: how many of the others the pictures look like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from exporter.scores._manifold import Manifold

__all__ = ["Recall"]


class Recall(Manifold):
    """The share of the others that lie among the pictures: nearer to one of these than its k-th nearest neighbour.

    Kynkäänniemi et al., *Improved Precision and Recall Metric* (2019), there with vgg16.pt and 50,000 pictures.
    """

    label: ClassVar[str] = "recall"
    higher_is_better: ClassVar[bool] = True

    def of(self, images: np.ndarray, prompts: Sequence[str], reference: np.ndarray | None) -> Sequence[float]:  # noqa: ARG002 - a score's
        """1 for each of the others that lies among the pictures, else 0: as many numbers as there are others.

        Raises:
            UnsupportedError: there are too few pictures to have so many neighbours, or the network has no features.

        """
        own, others = self.seen(images, reference)
        return self.lying(others, own)

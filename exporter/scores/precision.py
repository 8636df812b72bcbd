"""Precision: how many of the pictures look like the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from exporter.scores._manifold import Manifold

__all__ = ["Precision"]


class Precision(Manifold):
    """The share of the pictures that lie among the others: nearer to one of them than its k-th nearest neighbour.

    Kynkäänniemi et al., *Improved Precision and Recall Metric* (2019), there with vgg16.pt and 50,000 pictures.
    """

    label: ClassVar[str] = "precision"
    higher_is_better: ClassVar[bool] = True

    def of(self, images: np.ndarray, prompts: Sequence[str], reference: np.ndarray | None) -> Sequence[float]:  # noqa: ARG002 - a score's
        """1 for each picture that lies among the others, else 0.

        Raises:
            UnsupportedError: there are too few pictures to have so many neighbours, or the network has no features.

        """
        own, others = self.seen(images, reference)
        return self.lying(own, others)

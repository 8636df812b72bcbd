"""KID: the kernel distance between two sets of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from exporter.scores._discrepancy import shares
from exporter.scores._sets import FeatureSets

__all__ = ["Kid"]


class Kid(FeatureSets):
    """How far the pictures, as a whole, are from others: the squared maximum mean discrepancy of features, by a cubic kernel.

    Bińkowski et al., *Demystifying MMD GANs* (2018). Few pictures do not raise it. It is of all pairs, and not the mean over
    random subsets. A picture's number is its share: their mean is the distance, and intervals follow.
    """

    label: ClassVar[str] = "KID"
    higher_is_better: ClassVar[bool] = False

    def of(self, images: np.ndarray, prompts: Sequence[str], reference: np.ndarray | None) -> Sequence[float]:  # noqa: ARG002 - a score's
        """Each picture's share of the distance.

        Raises:
            UnsupportedError: there is one picture only, or the network has no features.

        """
        return shares(*self.seen(images, reference), _cubic).tolist()


def _cubic(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one @ other.T / one.shape[1] + 1) ** 3

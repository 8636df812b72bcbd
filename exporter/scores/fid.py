"""FID: the Fréchet distance between two sets of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from exporter.scores._sets import FeatureSets

__all__ = ["Fid"]

#: Pictures under which the distance says more of their number than of them.
_FEW = 10_000


class Fid(FeatureSets):
    """How far the pictures, as a whole, are from others: the Fréchet distance between normal distributions of their features.

    Heusel et al., *GANs Trained by a Two Time-Scale Update Rule* (2017). It is too high by what shrinks with the number of
    pictures. A picture's number is the distance and what the picture changes of it, to first order: their mean is the
    distance, and intervals follow.
    """

    label: ClassVar[str] = "FID"
    higher_is_better: ClassVar[bool] = False

    def notes(self, count: int) -> list[str]:
        """The protocol, and a warning where the pictures are too few."""
        few = min(count, len(self._files) or count)
        warned = (
            f"{self.label} of {few} pictures is too high, by what their number alone makes of it: under {_FEW:,} compare it only "
            "with those of as many, or take kid or cmmd."
        )
        return [*super().notes(count), *([warned] if few < _FEW else [])]

    def of(self, images: np.ndarray, prompts: Sequence[str], reference: np.ndarray | None) -> Sequence[float]:  # noqa: ARG002 - a score's
        """Each picture's number.

        Raises:
            UnsupportedError: there is one picture only, or the network has no features.

        """
        return shares(*self.seen(images, reference)).tolist()


def shares(own: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Of each row of `own` (N, width): the numbers whose mean is the Fréchet distance from `others` (M, width).

    What a row adds to the mean is its influence. By the covariance C the trace of (R C)^1/2 changes as half the optimal
    transport between both normal distributions, R^1/2 (R^1/2 C R^1/2)^-1/2 R^1/2, which stands below without its inverse
    where there is no spread.
    """
    count, width = own.shape
    apart, off = own.mean(0) - others.mean(0), own - own.mean(0)
    cov, root = _covariance(own), _root(_covariance(others))
    values, vectors = np.linalg.eigh(root @ cov @ root)
    spread = values > max(values.max(), 0) * width * np.finfo(np.float64).eps
    sides = np.sqrt(values[spread])
    moved = root @ vectors[:, spread] / np.sqrt(sides)  # its product with its transpose is the transport
    distance = apart @ apart + np.trace(cov) + (root**2).sum() - 2 * sides.sum()
    bent = ((off**2).sum(1) - ((off @ moved) ** 2).sum(1)) * count / (count - 1)
    return distance + 2 * off @ apart + bent - bent.mean()


def _covariance(rows: np.ndarray) -> np.ndarray:
    off = rows - rows.mean(0)
    return off.T @ off / (len(rows) - 1)


def _root(matrix: np.ndarray) -> np.ndarray:
    """The symmetric square root of a matrix whose eigenvalues are not negative but by rounding."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T

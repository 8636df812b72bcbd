"""Which rows lie where others are: the balls that reach from each row to its k-th nearest neighbour."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pydantic import Field

from engines.errors import UnsupportedError
from exporter.scores._sets import FeatureSets

#: Rows whose distances to all others are in memory at once.
_TOGETHER = 1024


class Manifold(FeatureSets):
    """A score of which pictures lie where others are."""

    neighbours: int = Field(default=3, ge=1, description="k")

    def lying(self, rows: np.ndarray, others: np.ndarray) -> list[float]:
        """1 for each of `rows` (N, width) that is nearer to one of `others` (M, width) than its k-th nearest neighbour, else 0.

        Raises:
            UnsupportedError: M is not above k.

        """
        return covered(rows, others, self.neighbours).tolist()


def covered(rows: np.ndarray, others: np.ndarray, neighbours: int) -> np.ndarray:
    """1 for each of `rows` (N, width) that lies in a ball of `others` (M, width), else 0: float64 (N,).

    Kynkäänniemi et al., *Improved Precision and Recall Metric* (2019), equation 1.

    Raises:
        UnsupportedError: M is not above the number of neighbours.

    """
    if len(others) <= neighbours:
        raise UnsupportedError(
            f"{len(others)} pictures have no {neighbours} neighbours each. Give more prompts, or neighbours: 1."
        )
    reach = np.concatenate([np.partition(each, neighbours, axis=1)[:, neighbours] for each in _squared(others, others)])
    return np.concatenate([(each <= reach).any(1) for each in _squared(rows, others)]).astype(np.float64)


def _squared(rows: np.ndarray, others: np.ndarray) -> Iterator[np.ndarray]:
    """Squared distances to all others, some rows at a time."""
    lengths = (others**2).sum(1)
    for first in range(0, len(rows), _TOGETHER):
        part = rows[first : first + _TOGETHER]
        yield np.maximum((part**2).sum(1)[:, None] + lengths - 2 * part @ others.T, 0)

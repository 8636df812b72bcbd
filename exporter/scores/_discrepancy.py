"""The maximum mean discrepancy of two sets of rows, as a number of each row."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]


def shares(own: np.ndarray, others: np.ndarray, kernel: Kernel) -> np.ndarray:
    """Of each row of `own` (N, width): the numbers whose mean is the unbiased squared discrepancy from `others` (M, width).

    Gretton et al., *A Kernel Two-Sample Test* (2012), lemma 6. What a row adds to the mean is its influence: the first
    derivative of the estimate by the row's weight, so that a bootstrap of the mean says how sure the estimate is.
    """
    count, most = len(own), len(others)
    within, beyond = kernel(own, own), kernel(others, others)
    alike = (within.sum(1) - np.diag(within)) / (count - 1)
    across = kernel(own, others).mean(1)
    theirs = (beyond.sum() - np.trace(beyond)) / (most * (most - 1))
    distance = alike.mean() - 2 * across.mean() + theirs
    return distance + 2 * (alike - alike.mean()) - 2 * (across - across.mean())

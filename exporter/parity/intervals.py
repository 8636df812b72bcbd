"""How sure a score is: 95% intervals over the pictures that it was taken of."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

#: Resamples of a bootstrap, and the seed that makes two runs of it the same.
_RESAMPLES, _SEED = 2000, 0
#: Two-sided 95% of a normal distribution.
_Z = 1.959964

Interval = tuple[float, float]


def interval(values: Sequence[float]) -> Interval:
    """95% interval of the mean: Wilson's of a share (every value is 0 or 1), else the percentile bootstrap's.

    A bootstrap has no width where all values are the same, which for a share of 100% would claim what no sample can show.
    """
    sample = np.asarray(values, np.float64)
    if np.isin(sample, (0.0, 1.0)).all():
        return wilson(int(sample.sum()), len(sample))
    return bootstrap(sample)


def difference(values: Sequence[float], others: Sequence[float]) -> Interval:
    """95% bootstrap interval of the mean difference of two scores of the same prompts on the same noise, pair by pair."""
    return bootstrap(np.asarray(values, np.float64) - np.asarray(others, np.float64))


def wilson(right: int, total: int) -> Interval:
    """95% interval of a share, which has a width at 0 and 1 too."""
    share = right / total
    centre = share + _Z * _Z / (2 * total)
    reach = _Z * math.sqrt(share * (1 - share) / total + _Z * _Z / (4 * total * total))
    scale = 1 + _Z * _Z / total
    return max(0.0, (centre - reach) / scale), min(1.0, (centre + reach) / scale)


def bootstrap(values: Sequence[float] | np.ndarray) -> Interval:
    """95% percentile bootstrap interval of a mean."""
    sample = np.asarray(values, np.float64)
    dice = np.random.default_rng(_SEED)
    # One resample after the other, since all indices of thousands of pictures at once would fill the memory.
    means = [sample[dice.integers(len(sample), size=len(sample))].mean() for _ in range(_RESAMPLES)]
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)

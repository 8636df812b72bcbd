"""Numbers whose mean is the discrepancy: the definition, pair by pair, and how sure their spread says that it is."""

import itertools
import math

import numpy as np
import pytest

from exporter.scores._discrepancy import shares
from tests.exporter.scores import seen


def gaussian(one, other):
    return np.exp(-((one[:, None] - other[None]) ** 2).sum(2) / 8)


def rows(count, seed, shift=0.0):
    return np.random.default_rng(seed).normal(size=(count, 3)) + shift


def test_the_mean_is_the_unbiased_squared_discrepancy():
    own, others = rows(7, 0), rows(5, 1, shift=1.0)

    def within(some):
        return np.mean([gaussian(one[None], other[None]) for one, other in itertools.permutations(some, 2)])

    between = np.mean([gaussian(one[None], other[None]) for one in own for other in others])
    assert shares(own, others, gaussian).mean() == pytest.approx(within(own) + within(others) - 2 * between, abs=1e-12)


def test_like_rows_are_nothing_apart_however_few():
    few = [shares(rows(6, seed), rows(6, 1000 + seed), gaussian).mean() for seed in range(300)]
    assert abs(np.mean(few)) < 3 * np.std(few) / math.sqrt(300)


@pytest.mark.parametrize("shift", [0.3, 1.0])
def test_the_numbers_say_how_far_other_rows_would_lead(shift):
    others = rows(300, 9999)
    found, told = seen.spread(lambda own: shares(own, others, gaussian), 100, lambda count, seed: rows(count, seed, shift))
    assert told == pytest.approx(found, rel=0.2)

"""Intervals hold what they should as often as they should."""

import numpy as np
import pytest

from exporter.parity.intervals import bootstrap, difference, interval


def test_a_share_has_wilsons_interval_which_has_a_width_at_its_ends():
    assert interval([1.0] * 64) == pytest.approx((0.9434, 1.0), abs=1e-4)
    assert interval([0.0] * 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert interval([1.0] * 931 + [0.0] * 69) == pytest.approx((0.9136, 0.9451), abs=2e-4)


def test_the_bootstrap_is_the_normal_interval_of_a_large_sample_and_the_same_each_time():
    sample = np.random.default_rng(3).normal(5, 2, 2000)
    low, high = bootstrap(sample)
    reach = 1.96 * sample.std() / np.sqrt(2000)
    assert (low, high) == pytest.approx((sample.mean() - reach, sample.mean() + reach), abs=0.01)
    assert bootstrap(sample) == (low, high)
    assert interval(list(sample)) == (low, high)


def test_it_holds_the_mean_in_about_95_of_100_samples():
    dice = np.random.default_rng(5)
    held = sum(low <= 1.0 <= high for low, high in (bootstrap(dice.exponential(1.0, 60)) for _ in range(100)))
    assert 88 <= held <= 99


def test_a_difference_is_of_pairs():
    dice = np.random.default_rng(7)
    hard = dice.normal(0, 10, 100)  # how hard each prompt is, for both
    low, high = difference(hard + 1, hard)
    assert (low, high) == pytest.approx((1.0, 1.0))
    assert interval(list(hard))[0] < -1  # by themselves they could not be told apart

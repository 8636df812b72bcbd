"""Distances between arrays, against their definitions written out."""

import numpy as np
import pytest

from exporter.parity.metrics import PERFECT, psnr, relative_l2, ssim

RANDOM = np.random.default_rng(0)


def test_relative_l2_is_a_share_of_what_is_wanted():
    want = np.array([3.0, 4.0], np.float32)
    assert relative_l2(want, want) == 0
    assert relative_l2(np.array([3.0, 4.5], np.float32), want) == pytest.approx(0.1)
    assert relative_l2(np.array([3.0, 4.0], np.float32), np.zeros(2, np.float32)) == 5  # of nothing, the error itself
    assert np.isnan(relative_l2(np.array([np.nan, 0.0]), want))


def test_psnr_is_20_log_of_peak_over_error():
    want = np.array([0.0, 2.0])
    assert psnr(want + 0.02, want) == pytest.approx(40.0)
    assert psnr(want + 0.02, want, 1.0) == pytest.approx(20 * np.log10(1 / 0.02))
    assert psnr(want.astype(np.float16), want) == PERFECT
    assert psnr(want + 1e-15, want, 1.0) == PERFECT, "never better than equal"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_furthest(bad):
    assert psnr(np.array([0.0, bad]), np.array([0.0, 1.0])) == -PERFECT


def test_against_a_constant_anything_else_is_furthest():
    flat = np.ones(4)
    assert psnr(flat, flat) == PERFECT
    assert psnr(flat + 1e-3, flat) == -PERFECT


def by_hand(a, b, window):
    """Wang et al. 2004 with a uniform window, each window by itself."""
    scores = []
    for image, other in zip(a.astype(np.float64), b.astype(np.float64), strict=True):
        for top in range(image.shape[0] - window + 1):
            for left in range(image.shape[1] - window + 1):
                for channel in range(image.shape[2]):
                    place = np.s_[top : top + window, left : left + window, channel]
                    x, y = image[place], other[place]
                    covariance = np.mean((x - x.mean()) * (y - y.mean()))
                    luminance = (2 * x.mean() * y.mean() + 1e-4) / (x.mean() ** 2 + y.mean() ** 2 + 1e-4)
                    scores.append(luminance * (2 * covariance + 9e-4) / (x.var() + y.var() + 9e-4))
    return np.mean(scores)


@pytest.mark.parametrize("window", [7, 3])
def test_ssim_is_the_mean_of_its_windows(window):
    a = RANDOM.random((2, 9, 12, 3), np.float32)
    b = np.clip(a + 0.2 * RANDOM.standard_normal(a.shape), 0, 1).astype(np.float32)
    assert ssim(a, b, window) == pytest.approx(by_hand(a, b, window), abs=1e-9)
    assert ssim(a, b, window) == pytest.approx(ssim(b, a, window))
    assert ssim(a, a, window) == pytest.approx(1.0)
    assert ssim(a, 1 - a, window) < 0

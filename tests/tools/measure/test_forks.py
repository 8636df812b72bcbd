"""What forks is counted, and apart from what only differs."""

import numpy as np
import pytest

from exporter.parity.metrics import psnr
from tools.measure.forks import _noisy, row


def test_forks_are_counted_and_the_others_told():
    wanted = [[np.linspace(0, 1, 100), np.linspace(0, 1, 100)], [np.linspace(0, 1, 100), np.linspace(0, 1, 100)]]
    got = [[wanted[0][0] + 0.01, wanted[0][1] + 0.001], [wanted[1][0] + 0.0001, -wanted[1][1]]]
    assert row("x", got, wanted) == "| x | 1 of 4 | 40.0 dB | 50.0 dB | 40.0 dB |"
    assert row("x", [[-wanted[0][0]]], [[wanted[0][0]]]).startswith("| x | 1 of 1 | – |")


def test_noise_is_as_strong_as_asked():
    array = np.random.default_rng(0).standard_normal((4, 4, 32, 32)).astype(np.float32)
    noisy = _noisy(array, 40, np.random.default_rng(1))
    assert noisy.dtype == np.float32
    assert psnr(noisy, array) == pytest.approx(40, abs=0.3)

"""A verdict: what is missed whatever the limits say. What single metrics give is in test_metrics.py."""

import numpy as np

from exporter.parity import metrics
from exporter.parity.judge import judge


def test_nan_fails_on_whichever_side_it_is():
    good, bad = np.linspace(0, 1, 4), np.array([0.0, np.nan, 1.0, np.inf])
    assert metrics.psnr(bad, good) == metrics.psnr(good, bad, 1.0) == -metrics.PERFECT
    for pair, said in (((bad, good), "2 of 4 values are NaN"), ((good, bad), "2 of 4 values that it is held to are NaN")):
        found = judge("vae_decoder", "onnx", "c", [pair], {})
        assert not found.passed
        assert not found.values
        assert said in found.note


def test_a_limit_that_cannot_be_measured_is_missed():
    latent = np.zeros((1, 4, 8, 8), np.float32)
    found = judge("unet", "engine", "c", [(latent, latent)], {"ssim": 0.5})
    assert not found.passed
    assert "ssim" not in found.values

"""How far two arrays are apart."""

from __future__ import annotations

import numpy as np

#: What two equal arrays score; JSON has no infinity.
PERFECT = 200.0


def relative_l2(got: np.ndarray, want: np.ndarray) -> float:
    """‖got − want‖ / ‖want‖."""
    norm = float(np.linalg.norm(want.astype(np.float64)))
    error = float(np.linalg.norm(got.astype(np.float64) - want))
    return error / norm if norm else error


def psnr(got: np.ndarray, want: np.ndarray, peak: float | None = None) -> float:
    """Peak signal-to-noise ratio in dB; `peak` is the range of `want` unless given (1.0 for pictures). NaN is furthest."""
    peak = float(np.ptp(want)) if peak is None else peak
    error = float(np.sqrt(np.mean(np.square(got.astype(np.float64) - want))))
    if not error or not np.isfinite(error):
        return -PERFECT if error else PERFECT
    return min(PERFECT, 20.0 * float(np.log10(peak / error))) if peak else -PERFECT


def ssim(got: np.ndarray, want: np.ndarray, window: int = 7) -> float:
    """Structural similarity of pictures in [0, 1], (B, H, W, 3): uniform window, averaged (Wang et al. 2004, their C1 and C2)."""

    def mean(picture: np.ndarray) -> np.ndarray:
        return np.lib.stride_tricks.sliding_window_view(picture, (window, window), axis=(1, 2)).mean(axis=(-2, -1))

    a, b = got.astype(np.float64), want.astype(np.float64)
    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    score = (2 * mean_a * mean_b + c1) * (2 * covariance + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return float(score.mean())

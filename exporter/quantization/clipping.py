"""How far the numbers of an activation reach: chosen from what was seen, call by call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from exporter.quantization.calibration import LARGEST, Seen, short
from exporter.quantization.observer import BINS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exporter.quantization.observer import ActivationStats

#: Candidates for a range, as shares of the largest magnitude seen.
_SHARES = np.linspace(1.0, 0.1, 91)
_PERCENTS = (50.0, 90.0, 99.0, 99.9, 99.99, 99.999)


def clip_range(watched: ActivationStats, method: str, percent: float, kind: str) -> float:
    """The largest magnitude that gets a number of its own; what is larger is clipped to it.

    `minmax` is the largest magnitude of all calls, `percentile` leaves out the largest of all calls together. `stepwise` has the
    least mean over the calls of (squared error of rounding and clipping) / (squared magnitude), so that a step with small numbers
    counts as much as one with large ones. fp8 rounds relatively, so there the largest magnitude is taken whatever the method.
    """
    largest, counts = max(watched.largest), np.stack(watched.counts).astype(np.float64)
    if method == "minmax" or kind == "fp8":
        return short(largest)
    if method == "percentile":
        return short(min(largest, _percentile(counts.sum(axis=0), watched.top, percent)))
    middles = (np.arange(BINS) + 0.5) * (watched.top / BINS)
    energy = counts @ np.square(middles)
    lively = np.array(watched.largest) > 0  # zeros are kept whatever the range
    clips = largest * _SHARES
    over = np.maximum(middles[None] - clips[:, None], 0.0)  # (candidates, bins)
    step = clips[:, None] / LARGEST[kind]
    # A bin that is rounded to 0 throughout loses its magnitude; others lose what rounding loses on average.
    error = np.where(over > 0, np.square(over), np.minimum(np.square(step) / 12, np.square(middles)[None]))
    losses = (counts[lively] @ error.T) / energy[lively, None]
    return short(float(clips[int(losses.mean(axis=0).argmin())]))


def seen(watched: ActivationStats, times: Sequence[str]) -> Seen:
    """The evidence, for a reader."""
    total = np.stack(watched.counts).sum(axis=0)
    percentiles = {f"{percent:g}": short(_percentile(total, watched.top, percent)) for percent in _PERCENTS}
    return Seen(
        largest=short(max(watched.largest)),
        percentiles=percentiles,
        steps=tuple((time, short(largest)) for time, largest in zip(times, watched.largest, strict=True)),
        histogram=tuple(int(count) for count in total.reshape(64, -1).sum(axis=1)),
        top=watched.top,
    )


def _percentile(counts: np.ndarray, top: float, percent: float) -> float:
    share = np.cumsum(counts) / counts.sum()
    return float((np.searchsorted(share, percent / 100) + 1) * top / BINS)

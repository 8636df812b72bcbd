"""How far two arrays are apart: one function for each metric, in one dict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engines.plugins import did_you_mean
from exporter.recipe.limits import bounds

#: What two equal arrays score; JSON has no infinity.
PERFECT = 200.0

Pair = tuple[np.ndarray, np.ndarray]  # got, want


@dataclass(frozen=True)
class Metric:
    """One way to measure how far `got` is from `want`.

    Attributes:
        of: (got, want, peak) → the number; `peak` is the largest value that the arrays can have, or None for the range of `want`.
        label: what tables call it.
        shown: the number as tables print it, with its unit.
        higher_is_better: whether a limit is a floor; else it is a ceiling.
        images: whether it is of images alone: float (B, H, W, 3) in [0, 1].

    """

    of: Callable[[np.ndarray, np.ndarray, float | None], float]
    label: str
    shown: Callable[[float], str]
    higher_is_better: bool
    images: bool = False

    def worst(self, values: Sequence[float]) -> float:
        """The one of several values that is furthest from perfect."""
        return min(values) if self.higher_is_better else max(values)

    def within(self, value: float, limit: float) -> bool:
        """Whether a value keeps a limit."""
        return value >= limit if self.higher_is_better else value <= limit


def relative_l2(got: np.ndarray, want: np.ndarray, _peak: float | None = None) -> float:
    """‖got − want‖ / ‖want‖."""
    norm = float(np.linalg.norm(want.astype(np.float64)))
    error = float(np.linalg.norm(got.astype(np.float64) - want))
    return error / norm if norm else error


def psnr(got: np.ndarray, want: np.ndarray, peak: float | None = None) -> float:
    """Peak signal-to-noise ratio in dB; `peak` is the range of `want` unless given (1.0 for images). NaN is furthest."""
    peak = float(np.ptp(want)) if peak is None else peak
    error = float(np.sqrt(np.mean(np.square(got.astype(np.float64) - want))))
    if not error or not np.isfinite(error):
        return -PERFECT if error else PERFECT
    return min(PERFECT, 20.0 * float(np.log10(peak / error))) if peak else -PERFECT


def ssim(got: np.ndarray, want: np.ndarray, _peak: float | None = None, window: int = 7) -> float:
    """Structural similarity of images in [0, 1], (B, H, W, 3): uniform window, averaged (Wang et al. 2004, their C1 and C2)."""

    def mean(image: np.ndarray) -> np.ndarray:
        return np.lib.stride_tricks.sliding_window_view(image, (window, window), axis=(1, 2)).mean(axis=(-2, -1))

    a, b = got.astype(np.float64), want.astype(np.float64)
    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    score = (2 * mean_a * mean_b + c1) * (2 * covariance + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return float(score.mean())


#: Metric, as recipes and manifests name it → how it is measured. The blame table has columns for the first two; of the others it
#: shows those that were measured behind the line.
METRICS: dict[str, Metric] = {
    "relative_l2": Metric(relative_l2, "rel. L2", "{:.1e}".format, higher_is_better=False),
    "psnr": Metric(psnr, "PSNR", lambda value: "exact" if value >= PERFECT else f"{value:.1f} dB", higher_is_better=True),
    "ssim": Metric(ssim, "SSIM", "{:.4f}".format, higher_is_better=True, images=True),
}
#: Part whose outputs are images at every stage.
_DECODER = "vae_decoder"


def measure(pairs: Sequence[Pair], *, image: bool, asked: Mapping[str, float]) -> dict[str, float]:
    """Metric → its worst value over several (got, want) of equal shapes.

    Args:
        pairs: what is compared.
        image: whether they are the images that the pipeline returns; otherwise metrics of images alone are left out.
        asked: metrics that a limit is of, which are measured wherever they can be.

    """
    pictures = image or all(want.ndim == 4 and want.shape[-1] == 3 for _, want in pairs)
    wanted = {name: metric for name, metric in METRICS.items() if not metric.images or image or (pictures and name in asked)}
    peak = 1.0 if image else None
    return {name: metric.worst([metric.of(got, want, peak) for got, want in pairs]) for name, metric in wanted.items()}


def keeps(values: Mapping[str, float], limit: Mapping[str, float]) -> bool:
    """Whether values keep every limit; one whose metric was not measured is missed."""
    return all(name in METRICS and name in values and METRICS[name].within(values[name], bound) for name, bound in limit.items())


def shown(name: str, value: float) -> str:
    """A value as tables print it; of a metric that is not known here, the bare number."""
    return METRICS[name].shown(value) if name in METRICS else f"{value:g}"


def label(name: str) -> str:
    """What tables call a metric."""
    return METRICS[name].label if name in METRICS else name


def labelled(values: Mapping[str, float]) -> str:
    """Values in a sentence, each with what it is of: `PSNR 46.0 dB, SSIM 0.9990`."""
    return ", ".join(f"{label(name)} {shown(name, value)}" for name, value in values.items())


def problems(limits: Mapping[str, float | Mapping[str, float]]) -> list[str]:
    """What is wrong with a recipe's `checks.limits`: metrics that there are not, or that are not of what they limit."""
    found = []
    for name, own in limits.items():
        part, _, stage = name.rpartition(".")
        for metric in bounds(own):
            if metric not in METRICS:
                found.append(f"checks.limits.{name}: unknown metric {metric!r}{did_you_mean(metric, list(METRICS))}")
            elif METRICS[metric].images and stage != "image" and part != _DECODER:
                found.append(
                    f"checks.limits.{name}: {metric} compares images, which only the line image and those of {_DECODER} have; "
                    f"write image, or {_DECODER}.{stage}"
                )
    return found

"""Metrics: what equal and different arrays score, which way is better, what a limit may be of."""

import numpy as np
import pytest

from engines.bundle import Verdict
from exporter.parity import metrics, table
from exporter.parity.judge import judge
from exporter.parity.metrics import METRICS, PERFECT, Metric, psnr, relative_l2, ssim
from exporter.recipe.limits import Limits

IMAGE = np.linspace(0, 1, 2 * 8 * 8 * 3, dtype=np.float32).reshape(2, 8, 8, 3)


@pytest.mark.parametrize("name", METRICS)
def test_equal_arrays_are_best_and_a_larger_error_is_worse(name):
    metric = METRICS[name]
    near, far = (metric.of(IMAGE + error * np.sign(IMAGE - 0.5), IMAGE, 1.0) for error in (0.01, 0.1))
    best = metric.of(IMAGE, IMAGE, 1.0)
    assert metric.worst([best, near, far]) == far
    assert metric.worst([best, near]) == near
    assert metric.within(near, near)
    assert metric.within(best, near)
    assert not metric.within(far, near)


def test_known_differences():
    assert metrics.relative_l2(np.array([3.0, 4.0]), np.array([0.0, 4.0])) == 0.75
    assert metrics.psnr(IMAGE + 0.1, IMAGE, 1.0) == pytest.approx(20)
    assert metrics.psnr(10 * (IMAGE + 0.1), 10 * IMAGE) == pytest.approx(20), "the peak is the range"
    assert metrics.ssim(IMAGE, IMAGE) == pytest.approx(1.0)
    assert metrics.ssim(1 - IMAGE, IMAGE) < 0.1


def test_one_entry_is_a_whole_metric(monkeypatch):
    """Verdicts, limits and table know a metric that the dict knows."""
    largest = Metric(lambda got, want, _peak: float(abs(got - want).max()), "largest", "{:.2f}".format, higher_is_better=False)
    monkeypatch.setitem(METRICS, "largest", largest)
    limits = Limits({"unet.engine": {"largest": 0.2}})
    pairs = [(IMAGE, IMAGE), (IMAGE + 0.25, IMAGE)]
    found = judge("unet", "engine", "c", pairs, limits("unet", "engine", "fp32"), backend="b")
    assert found.values["largest"] == pytest.approx(0.25)
    assert (found.limit, found.passed) == ({"largest": 0.2}, False)
    assert "largest 0.2  FAIL largest 0.25; c" in table.table([found])
    assert not metrics.problems({"unet.engine": {"largest": 0.2}})


def test_a_mapping_stands_instead_of_the_floor_and_may_name_several():
    limits = Limits({"image": {"ssim": 0.9}, "vae_decoder.engine": {"psnr": 30.0, "ssim": 0.95}, "unet.onnx": 35.0})
    assert limits("end to end", "image", "fp32") == {"ssim": 0.9}
    assert limits("vae_decoder", "engine", "fp16") == {"psnr": 30.0, "ssim": 0.95}
    assert limits("unet", "onnx", "fp16") == {"psnr": 35.0}
    assert limits("unet", "engine", "fp16") == {"psnr": 45.0}
    noisy = IMAGE + np.where(np.arange(IMAGE.size).reshape(IMAGE.shape) % 2, 0.05, -0.05)
    decoded = judge("vae_decoder", "engine", "c", [(noisy, IMAGE)], {"psnr": 20.0, "ssim": 0.9999})
    assert not decoded.passed, "PSNR alone would pass"
    assert judge("vae_decoder", "engine", "c", [(noisy, IMAGE)], {"psnr": 20.0}).passed


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"image": {"sim": 0.9}}, "checks.limits.image: unknown metric 'sim'; did you mean 'ssim'?"),
        ({"engine": {"ssim": 0.9}}, "ssim compares images, which only the line image and those of vae_decoder have"),
        ({"unet.engine": {"ssim": 0.9}}, "write image, or vae_decoder.engine"),
    ],
)
def test_a_limit_of_what_is_not_measured_there_is_a_problem_of_the_recipe(limits, said):
    (problem,) = metrics.problems(limits)
    assert said in problem


@pytest.mark.parametrize(("l2", "db", "limit"), [(0.1, 30.0, 25.0), (0.1, 30.0, None), (None, None, None)])
def test_verdicts_of_earlier_formats_are_read_into_the_mapping(l2, db, limit):
    old = {"part": "unet", "stage": "s", "case": "c", "relative_l2": l2, "psnr": db, "limit": limit, "passed": True}
    found = Verdict.model_validate(old)
    assert found.values == ({} if l2 is None else {"relative_l2": l2, "psnr": db})
    assert found.limit == ({} if limit is None else {"psnr": limit})
    assert Verdict.model_validate_json(found.model_dump_json()) == found


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
    assert ssim(a, b, window=window) == pytest.approx(by_hand(a, b, window), abs=1e-9)
    assert ssim(a, b, window=window) == pytest.approx(ssim(b, a, window=window))
    assert ssim(a, a, window=window) == pytest.approx(1.0)
    assert ssim(a, 1 - a, window=window) < 0

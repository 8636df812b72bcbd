"""Metrics: what equal and different arrays score, which way is better, what a limit may be of."""

import numpy as np
import pytest

from engines.bundle import Verdict
from exporter.parity import compare, metrics, table
from exporter.parity.metrics import METRICS, Metric
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
    found = compare.judge("unet", "engine", "c", pairs, limits("unet", "engine", "fp32"), backend="b")
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
    decoded = compare.judge("vae_decoder", "engine", "c", [(noisy, IMAGE)], {"psnr": 20.0, "ssim": 0.9999})
    assert not decoded.passed, "PSNR alone would pass"
    assert compare.judge("vae_decoder", "engine", "c", [(noisy, IMAGE)], {"psnr": 20.0}).passed


def test_a_limit_that_cannot_be_measured_is_missed():
    latent = np.zeros((1, 4, 8, 8), np.float32)
    found = compare.judge("unet", "engine", "c", [(latent, latent)], {"ssim": 0.5})
    assert not found.passed
    assert "ssim" not in found.values


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

"""Large channels move from activations into weights."""

import numpy as np
import onnx_ir as ir
import pytest

from exporter.onnx.layers import layers
from exporter.quantization import channel_scales
from exporter.quantization.observer import ActivationStats
from tests.exporter.passes import layered
from tests.exporter.passes.layered import error, quantized


def test_smoothing_saves_what_one_large_channel_costs(tmp_path):
    results = {}
    for name, options in {"plain": {"format": "int8", "ranges": "minmax"}, "smooth": {"format": "int8-smoothquant"}}.items():
        _, file = quantized(tmp_path / name, graph={"spike": 200.0}, **options)
        results[name] = error(file, tmp_path / name / "export" / "unet.onnx", graph_optimization="none")
    assert results["smooth"] > results["plain"] + 3


def seen(peaks=None, mean=None, rows=()):
    return ActivationStats(channels=peaks, mean=mean, rows=list(rows))


@pytest.fixture
def found(tmp_path):
    return {layer.name: layer for layer in layers(ir.load(layered.write(tmp_path / "export")))}


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_smoothing_is_the_paper_s_equation(found, alpha):
    """max|X|^a / max|W|^(1-a), over the largest weight of both that read one value, and then around 1."""
    peaks = np.random.default_rng(0).uniform(0.1, 50, 16)
    factors = channel_scales.smooth([found["to_q"], found["to_k"]], {"to_q": seen(peaks), "to_k": seen(peaks)}, alpha)
    weights = [np.abs(found[name].weight.const_value.numpy()).max(axis=1) for name in ("to_q", "to_k")]
    want = peaks**alpha / np.maximum(*weights) ** (1 - alpha)
    want /= np.sqrt(want.max() * want.min())
    np.testing.assert_allclose(factors["to_q"], want, rtol=6e-4)  # four digits
    assert factors["to_q"] == factors["to_k"]


def test_a_convolution_s_channels_are_those_of_its_input(found):
    factors = channel_scales.smooth([found["middle"]], {"middle": seen(np.ones(16))}, 0.0)
    want = 1 / np.abs(found["middle"].weight.const_value.numpy()).max(axis=(0, 2, 3))
    np.testing.assert_allclose(factors["middle"], want / np.sqrt(want.max() * want.min()), rtol=6e-4)


def test_factors_stay_within_what_half_precision_bears(found):
    peaks = np.ones(16)
    peaks[0], peaks[1] = 1e12, 0.0
    factors = channel_scales.smooth([found["to_q"]], {"to_q": seen(peaks)}, 1.0)["to_q"]
    assert max(factors) == 127
    assert min(factors) == pytest.approx(1 / 127, rel=1e-3)


def test_what_was_not_watched_gets_no_factors(found):
    assert channel_scales.smooth([found["to_q"]], {"to_q": seen()}, 0.5) == {}
    assert channel_scales.search([found["to_q"], found["middle"]], {"to_q": seen(), "middle": seen(mean=np.ones(16))}, 16) == {}


def test_the_search_finds_factors_where_few_channels_count_and_none_where_all_do(found):
    random = np.random.default_rng(0)
    rows = random.standard_normal((200, 16)).astype(np.float32)
    watched = {name: seen(mean=np.ones(16), rows=[rows]) for name in ("to_q", "to_k")}
    assert channel_scales.search([found["to_q"], found["to_k"]], watched, 16) == {}, "equal channels: nothing beats e = 0"
    rows[:, 3] *= 30
    watched = {name: seen(mean=np.abs(rows).mean(0), rows=[rows]) for name in ("to_q", "to_k")}
    factors = channel_scales.search([found["to_q"], found["to_k"]], watched, 16)
    assert factors["to_q"] == factors["to_k"]
    assert int(np.argmax(factors["to_q"])) == 3
    weights = [channel_scales._matrix(found[name]) for name in ("to_q", "to_k")]
    assert channel_scales._loss(rows, weights, factors["to_q"], 16) < channel_scales._loss(rows, weights, np.ones(16), 16)

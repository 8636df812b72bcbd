"""What goes into every layer is watched on real calls, and what has no range is refused by its layer's name."""

import numpy as np
import onnx_ir as ir
import pytest

from engines.errors import UnsupportedError
from exporter.onnx.layers import layers
from exporter.quantization import observer
from exporter.quantization.observer import ActivationStats, observe
from tests.exporter.passes import layered
from tests.exporter.passes.layered import MIDDLE, quantized
from tests.exporter.quantization.test_clipping import watched


def test_a_histogram_grows_without_losing_a_number():
    found = watched([0.001, 0.5], [3.0], [900.0])
    assert found.top == 1024.0
    assert [int(counts.sum()) for counts in found.counts] == [2, 1, 1]
    assert found.largest == pytest.approx([0.5, 3.0, 900.0])


def test_activations_without_a_range_name_their_layer(tmp_path):
    with pytest.raises(UnsupportedError, match=r"the input of \w+: \d+ of \d+ numbers are NaN or infinite at run, step 1"):
        quantized(tmp_path / "nan", format="int8", cases=layered.cases(scale=np.nan))
    with pytest.raises(UnsupportedError, match="the input of middle is 0 in all of 6 calls"):
        quantized(tmp_path / "zero", format="int8", graph={"spike": 0.0, "silent": True})


def test_channels_means_and_rows_of_all_calls():
    found, random = ActivationStats(), np.random.default_rng(0)
    calls = [random.standard_normal((2, 3, 4, 5)).astype(np.float32) for _ in range(4)]
    for call in calls:
        found.see(call, 1, 4, rows=True)
    size = np.abs(np.stack(calls)).transpose(0, 1, 3, 4, 2).reshape(4, -1, 3)
    np.testing.assert_allclose(found.channels, size.max((0, 1)))
    np.testing.assert_allclose(found.mean, size.mean((0, 1)), rtol=1e-6)
    np.testing.assert_allclose(found.largest, size.max((1, 2)))
    assert [rows.shape for rows in found.rows] == [(40, 3)] * 4
    np.testing.assert_array_equal(found.rows[0], calls[0].transpose(0, 2, 3, 1).reshape(-1, 3))


def test_rows_and_counts_are_spread_over_a_large_value(monkeypatch):
    monkeypatch.setattr(observer, "_ROWS", 8)
    monkeypatch.setattr(observer, "_COUNTED", 10)
    found = ActivationStats()
    found.see(np.arange(100, dtype=np.float32).reshape(1, 100, 1), 2, 2, rows=True)
    np.testing.assert_array_equal(found.rows[0][:, 0], [0, 25, 50, 75])
    assert found.counts[0].sum() == 10
    assert found.largest == [99.0], "the largest is always found"


def test_what_goes_in_and_comes_out_is_that_of_the_graph(tmp_path):
    """Against the network written out in numpy: the first convolution's input, and its output without the bias."""
    import torch

    graph, cases = layered.write(tmp_path / "export"), layered.cases(2)
    (tmp_path / "work").mkdir()
    look = {"outputs": True, "rows": False, "factors": {}}
    inputs, made = observe(graph, layers, cases, layered.SIGNATURE, tmp_path / "work", **look)
    assert set(inputs) == {"conv_in", *MIDDLE, "conv_out"}
    assert set(made) == {"conv_in", "middle", "conv_out"}
    assert inputs["to_q"] is inputs["to_k"], "they read one value"
    moved = [case.inputs["latent"] + case.inputs["timestep"].reshape(-1, 1, 1, 1) for case in cases]
    np.testing.assert_allclose(inputs["conv_in"].largest, [np.abs(each).max() for each in moved], rtol=1e-6)
    np.testing.assert_allclose(inputs["conv_in"].channels, np.abs(np.concatenate(moved)).max((0, 2, 3)), rtol=1e-6)
    first = layers(ir.load(graph))[0]
    weight = torch.tensor(first.weight.const_value.numpy())
    out = [torch.nn.functional.conv2d(torch.from_numpy(each), weight, padding=1).numpy() for each in moved]
    np.testing.assert_allclose(made["conv_in"].largest, [np.abs(each).max() for each in out], rtol=1e-4)


def test_channels_are_divided_before_they_are_watched(tmp_path):
    graph, cases = layered.write(tmp_path / "export"), layered.cases(2)
    seen = {}
    for name, factors in (("plain", {}), ("divided", {"to_q": [2.0] * 8 + [0.5] * 8, "conv_in": [4.0] * 16})):
        (tmp_path / name).mkdir()
        look = {"outputs": False, "rows": True, "factors": factors}
        seen[name], made = observe(graph, layers, cases, layered.SIGNATURE, tmp_path / name, **look)
        assert made == {}
    plain, divided = seen["plain"], seen["divided"]
    np.testing.assert_allclose(divided["to_q"].channels, plain["to_q"].channels / ([2.0] * 8 + [0.5] * 8), rtol=1e-5)
    np.testing.assert_allclose(divided["conv_in"].channels, plain["conv_in"].channels / 4, rtol=1e-5)
    np.testing.assert_allclose(divided["middle"].channels, plain["middle"].channels, rtol=1e-5)
    assert plain["to_q"].rows[0].shape[1] == 16

"""Arrays of few bits are as near to their floats as their scales allow."""

import numpy as np
import pytest

from exporter.quantization import numerics


def test_eight_bits_keep_every_channel_within_half_a_step():
    weight = np.random.default_rng(0).standard_normal((8, 5, 3, 3)).astype(np.float32)
    weight[2] *= 1000
    weight[4] = 0
    numbers, scale = numerics.per_channel(weight, 0, "int8")
    back = numbers.astype(np.float32) * scale[:, None, None, None]
    assert numbers.dtype == np.int8
    assert (np.abs(back - weight) <= scale[:, None, None, None] / 2 * 1.0001).all()
    assert not back[4].any()


def test_four_bits_in_blocks_beat_plain_rounding_to_the_largest():
    rows = np.random.default_rng(0).standard_t(3, (64, 128)).astype(np.float32)
    numbers, scale = numerics.in_blocks(rows, 32)
    back = (numbers.reshape(-1, 32) * scale.reshape(-1, 1)).reshape(rows.shape)
    blocks = rows.reshape(-1, 32)
    peak = np.abs(blocks).max(axis=1, keepdims=True) / 7
    plain = (np.rint(blocks / peak) * peak).reshape(rows.shape)
    assert np.abs(numbers).max() == 7
    assert scale.shape == (64, 4)
    assert np.square(back - rows).sum() < np.square(plain - rows).sum()


@pytest.mark.parametrize(
    ("length", "wanted", "block"), [(128, 64, 64), (96, 64, 32), (720, 128, 16), (40, 64, 0), (1280, 128, 128)]
)
def test_a_block_divides_its_row(length, wanted, block):
    assert numerics.block_of(length, wanted) == block


@pytest.mark.parametrize(("value", "said"), [(0.0, "zero throughout"), (np.nan, "NaN")])
def test_weights_without_a_scale_are_refused(value, said):
    with pytest.raises(ValueError, match=said):
        numerics.per_channel(np.full((4, 4), value, np.float32), 0, "int8")


@pytest.mark.parametrize("axis", [0, 1])
def test_scales_are_those_of_their_axis(axis):
    weight = np.array([[1.0, -4.0], [2.0, 8.0]], np.float32)
    numbers, scale = numerics.per_channel(weight, axis, "int8")
    peaks = np.float32([[4, 8], [2, 8]][axis])
    np.testing.assert_allclose(scale, peaks / 127, rtol=1e-6)
    np.testing.assert_array_equal(numbers, np.rint(weight / np.expand_dims(peaks, 1 - axis) * 127))


def test_fp8_reaches_its_largest_number_and_rounds_relatively():
    weight = np.float32([[0.001, -0.5, 3.0]])
    numbers, scale = numerics.per_channel(weight, 0, "fp8")
    back = numbers.astype(np.float32)
    assert back[0, 2] == 448
    np.testing.assert_allclose(back * scale[:, None], weight, rtol=2**-4)  # three bits behind the point


def test_a_channel_of_zeros_has_a_scale_and_stays_zero():
    numbers, scale = numerics.per_channel(np.float32([[0, 0], [1, 2]]), 0, "int8")
    assert scale[0] == scale[1] == np.float32(2) / np.float32(127)
    assert not numbers[0].any()


def test_blocks_of_4_bits_by_hand():
    """Integers up to 7 are kept exactly, since no clip has a smaller error than none."""
    rows = np.float32([[7, -3, 0, 1] * 4, [-14, 2, 4, 6] * 4])
    numbers, scales = numerics.in_blocks(rows, 16)
    np.testing.assert_array_equal(numbers, [[7, -3, 0, 1] * 4, [-7, 1, 2, 3] * 4])
    np.testing.assert_allclose(scales, [[1.0], [2.0]])


def test_the_memory_s_bound_changes_no_number(monkeypatch):
    rows = np.random.default_rng(1).standard_normal((6, 64)).astype(np.float32)
    rows[0, :16] = 0
    whole = numerics.in_blocks(rows, 16)
    monkeypatch.setattr(numerics, "_CHUNK", 5)
    for one, other in zip(whole, numerics.in_blocks(rows, 16), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (whole[1] > 0).all()
    assert not whole[0][0, :16].any()


@pytest.mark.parametrize(("value", "told"), [(0.0, "zero throughout"), (np.inf, "NaN or infinite"), (np.nan, "NaN or infinite")])
def test_blocks_without_a_scale_are_refused(value, told):
    with pytest.raises(ValueError, match=told):
        numerics.in_blocks(np.full((2, 32), value, np.float32), 16)

"""Noise of a seed, and noise from a file."""

import hashlib

import numpy as np
import pytest

from engines.errors import UnsupportedError
from engines.images import noises
from engines.signature import Port
from tests.engines import conditioned, small


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (np.zeros((1, 4, 4, 4)), r"holds float64 \[1, 4, 4, 4\]. Noise is float32"),
        (np.zeros((4, 4, 4), np.float32), r"holds float32 \[4, 4, 4\]"),
        (np.array([{}], object), "cannot be read as an array"),
    ],
)
def test_a_noise_file_that_is_none(tmp_path, noise, message):
    np.save(tmp_path / "n.npy", noise, allow_pickle=True)
    with pytest.raises(UnsupportedError, match=message):
        noises.read(tmp_path / "n.npy")


def test_a_noise_file(tmp_path):
    noise = np.random.default_rng(1).standard_normal((2, 1, 4, 4, 4), np.float32)
    np.save(tmp_path / "n.npy", noise)
    np.testing.assert_array_equal(noises.read(tmp_path / "n.npy"), noise)
    for content in (b"", b"no array", (tmp_path / "n.npy").read_bytes()[:200]):
        (tmp_path / "m.npy").write_bytes(content)
        with pytest.raises(UnsupportedError, match=r"m\.npy cannot be read as an array"):
            noises.read(tmp_path / "m.npy")


def test_a_seed_is_a_stream_of_its_own():
    """Picture i of seed s is picture 0 of seed s + i: Philox keyed by the seed, whatever the batch."""
    draw = noises.seeded([7, 8, 9], (3, 4, 2, 2), "numpy")
    first, second = draw(), draw()
    assert first.dtype == np.float32
    for index in range(3):
        stream = np.random.Generator(np.random.Philox(key=7 + index))
        np.testing.assert_array_equal(first[index], stream.standard_normal((4, 2, 2), np.float32))
        np.testing.assert_array_equal(second[index], stream.standard_normal((4, 2, 2), np.float32))


def test_a_draw_of_fewer_channels_takes_no_more_of_its_stream():
    draw = noises.seeded([7], (1, 4, 2, 2), "numpy", {1: 3})
    stream = np.random.Generator(np.random.Philox(key=7))
    for channels in (4, 3, 4):
        made = draw()[0]
        np.testing.assert_array_equal(made[:channels], stream.standard_normal((channels, 2, 2), np.float32))
        assert not made[channels:].any()


@pytest.mark.parametrize(("order", "place"), [((), 0), ((1, 0), 1)])
def test_a_part_of_fewer_channels_narrows_its_own_draw(order, place):
    noise = Port(name="noise", shape=("batch", 3, *small.LATENT[2:]))
    added = conditioned.named(small.part("condition", (noise,), (conditioned.GATE,), conditioned.SIDES), "hint")
    made = small.draft().model_copy(update={"parts": {**small.draft().parts, "hint": added}, "noise_order": order})
    assert noises.narrow(made, 4) == {place: 3}
    assert noises.narrow(made, 3) == {}
    assert noises.narrow(small.draft(), 4) == {}


def test_given_draws_come_in_order_and_end():
    shape = (1, 2, 3, 4)
    one, two = np.zeros(shape, np.float32), np.ones(shape, np.float32)
    draw = noises.given(iter([one, two]), shape)
    assert draw() is one
    assert draw() is two
    with pytest.raises(UnsupportedError, match="draws more noise than was given"):
        draw()
    np.testing.assert_array_equal(noises.given(two, shape)(), two)  # four axes are one draw, not several


@pytest.mark.parametrize("wrong", [np.zeros((1, 2, 3, 5), np.float32), np.zeros((1, 2, 3, 4)), np.zeros((2, 3, 4), np.float32)])
def test_the_draw_that_does_not_fit_is_numbered(wrong):
    shape = (1, 2, 3, 4)
    draw = noises.given([np.zeros(shape, np.float32), wrong], shape)
    draw()
    told = rf"noise 2 must be float32 \[1, 2, 3, 4\], got {wrong.dtype} \[{', '.join(map(str, wrong.shape))}\]"
    with pytest.raises(UnsupportedError, match=told):
        draw()


def test_the_first_draws_come_in_another_order_and_the_rest_as_they_are():
    source = iter(range(9))
    draw = noises.reordered(lambda: next(source), (1, 0))
    assert [draw() for _ in range(4)] == [1, 0, 2, 3]
    assert noises.reordered(lambda: next(source), ())() == 4
    draw = noises.reordered(lambda: next(source), (2, 1))  # of which the first changes nothing
    assert [draw() for _ in range(3)] == [7, 6, 8]


def test_a_picture_s_share_is_hashed_as_it_lies_in_its_rows():
    draws = [np.asfortranarray(noises.seeded([seed, seed + 1], (2, 3, 2, 2), "numpy")()) for seed in (1, 9)]
    source = iter(draws)
    draw, told = noises.hashed(lambda: next(source), 2)
    assert told() == [hashlib.sha256().hexdigest()] * 2
    assert draw() is draws[0]
    draw()
    assert told() == [hashlib.sha256(b"".join(each[index].tobytes("C") for each in draws)).hexdigest() for index in range(2)]
    with pytest.raises(ValueError, match="zip"):
        noises.hashed(lambda: draws[0], 3)[0]()


@pytest.mark.parametrize("generator", ["numpy", "torch-cpu", "torch-cuda"])
def test_noises_of_other_shapes_come_first_from_the_same_streams(generator):
    first = {"prior_noise": (3, 2, 16)}
    draw, drawn = noises.seeded_after(first, [7, 8], (2, 4, 2, 2), generator)
    assert drawn["prior_noise"].shape == (2, 3, 2, 16)
    for index, seed in enumerate((7, 8)):
        stream = noises.stream(seed, generator)
        assert np.array_equal(drawn["prior_noise"][index], np.stack([stream((2, 16)) for _ in range(3)]))
    assert not np.array_equal(draw(), noises.seeded([7, 8], (2, 4, 2, 2), generator)()), "the latent's come after them"

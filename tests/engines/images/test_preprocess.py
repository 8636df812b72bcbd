"""A picture becomes an input's numbers as it is declared."""

import numpy as np
import pytest
from PIL import Image

from engines.errors import UnsupportedError
from engines.images.preprocess import fed, plain
from engines.inputs import Input, Preprocessing


def entry(kind="image", depth=3, default=None, **preprocessing):
    return Input(kind=kind, shape=("batch", 4, 8, depth), default=default, preprocessing=Preprocessing(**preprocessing))


def halves(width=8, height=4):
    """Black left, white right."""
    levels = np.zeros((height, width, 3), np.uint8)
    levels[:, width // 2 :] = 255
    return Image.fromarray(levels, "RGB")


def test_zero_to_one_and_any_other_range():
    assert fed("x", entry(), halves(), 4, 8)[0, [0, 7]].tolist() == [[0, 0, 0], [1, 1, 1]]
    made = fed("x", entry(mean=(0.5,), std=(0.5,)), halves(), 4, 8)
    assert (made.dtype, made.shape, made.min(), made.max()) == (np.float32, (4, 8, 3), -1, 1)
    each = fed("x", entry(mean=(0, 0.25, 0.5), std=(1, 0.5, 0.25)), halves(), 4, 8)
    np.testing.assert_allclose(each[0, 7], [1, 1.5, 2])


def test_inverted_and_binarized():
    grey = Image.fromarray(np.array([[0, 127, 128, 255]], np.uint8), "L").resize((8, 4), Image.Resampling.NEAREST)
    mask = entry("mask", 1, binarize=True)
    assert fed("x", mask, grey, 4, 8)[0, ::2, 0].tolist() == [0, 0, 1, 1]
    assert fed("x", entry("mask", 1, binarize=True, invert=True), grey, 4, 8)[0, ::2, 0].tolist() == [1, 1, 0, 0]


def test_a_picture_of_another_size_is_refused_stretched_or_cropped():
    wide = halves(32, 4)
    with pytest.raises(
        UnsupportedError, match=r"input x: 32x4 pixels \(width x height\), and 8x4 are needed\. Crop or resize it"
    ):
        fed("x", entry(), wide, 4, 8)
    stretched = fed("x", entry(resize="stretch", resample="nearest"), wide, 4, 8)
    assert stretched[0, :, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    cropped = fed("x", entry(resize="crop", resample="nearest"), wide, 4, 8)
    assert cropped[0, :, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    high = fed("x", entry(resize="crop"), halves(8, 40), 4, 8)
    assert high.shape == (4, 8, 3)
    assert fed("x", entry(resize="crop"), halves(3, 2), 4, 8).shape == (4, 8, 3)


def test_the_longer_side_is_rounded_down_before_it_is_cut():
    dice = np.random.default_rng(0)
    tall = Image.fromarray(dice.integers(0, 256, (19, 10, 3)).astype(np.uint8))  # 15.2 of 8, which nobody rounds up
    odd = Image.fromarray(dice.integers(0, 256, (10, 17, 3)).astype(np.uint8))  # 13.6
    for image, (width, height) in ((tall, (8, 15)), (odd, (13, 8))):
        whole = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC), np.float32) / 255
        top, left = (height - 8) // 2, (width - 8) // 2
        found = fed("x", entry(resize="crop", resample="bicubic"), image, 8, 8)
        np.testing.assert_array_equal(found, whole[top : top + 8, left : left + 8])


def test_a_grey_image_of_a_picture_in_colour():
    assert fed("x", entry("image", 1), Image.new("RGBA", (8, 4), (0, 0, 0, 0)), 4, 8).min() == 1  # what is transparent is white


def test_the_default_goes_the_same_way():
    assert np.unique(plain(entry("mask", 1, 1.0, invert=True), 4, 8)).tolist() == [0]
    assert np.unique(plain(entry(default=0.5, mean=(0.5,), std=(0.5,)), 4, 8)).tolist() == [0]
    assert plain(entry(default=0.5), 4, 8).shape == (4, 8, 3)

"""What the reward is trained on: scenes, and others in which one thing that captions say is another."""

import numpy as np
import pytest

from tools.demo.captions import caption, parse
from tools.demo.check_scene import matches
from tools.demo.scenes import draw, training_scene
from tools.demo.train_reward import batches, near_miss


@pytest.mark.parametrize("number", range(12))
def test_a_near_miss_shows_its_own_caption_and_not_the_scenes(number):
    rng = np.random.default_rng(number)
    scene = training_scene(number)
    other = near_miss(scene, rng)
    said, told = caption(scene, np.random.default_rng(0)), caption(other, np.random.default_rng(0))
    assert parse(said) != parse(told)
    assert matches(draw(other), told)
    assert not matches(draw(other), said)


def test_a_batch_is_of_pictures_and_their_captions():
    images, texts = next(batches(4))
    assert (images.shape, images.dtype, len(texts)) == ((4, 64, 64, 3), np.uint8, 4)
    assert all(matches(image, text) for image, text in zip(images, texts, strict=True))
    assert texts == next(batches(4))[1]

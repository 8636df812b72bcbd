import numpy as np
import pytest
from PIL import Image

from exporter.bench import drawing


@pytest.mark.parametrize("count", [0, 1, 8, 9, 20])
def test_every_prompt_has_its_own_seed_whatever_the_groups(count):
    prompts = [f"a red square {number}" for number in range(count)]
    calls = list(drawing.groups(prompts, 5))
    assert [text for texts, _ in calls for text in texts] == prompts
    assert [seed for _, seeds in calls for seed in seeds] == list(range(5, 5 + count))
    assert all(len(texts) == len(seeds) <= 8 for texts, seeds in calls)


def test_pixels_are_red_green_and_blue():
    pictures = [Image.new("RGB", (3, 2), "red"), Image.new("L", (3, 2), 7)]
    found = drawing.pixels(pictures)
    assert (found.shape, found.dtype) == ((2, 2, 3, 3), np.uint8)
    assert [tuple(each[0, 0]) for each in found] == [(255, 0, 0), (7, 7, 7)]

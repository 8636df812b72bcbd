"""What the demo's LoRAs change."""

import numpy as np
import pytest

from tools.demo import captions, scenes
from tools.demo.changes import CHANGES, NOTHING, lora_file, together
from tools.demo.check_scene import agrees, read


@pytest.mark.parametrize("names", [("stars",), ("cyan",), ("stars", "cyan")])
def test_the_changed_picture_shows_the_changed_statement(names):
    change = together(*names)
    for seed in range(20):
        scene = scenes.training_scene(seed)
        stated = captions.parse(captions.caption(scene, np.random.default_rng(seed)))
        reading = read(scenes.draw(change.scene(scene)))
        assert agrees(reading, change.statement(stated))
        assert {seen.colour for seen in reading.objects} == {"cyan"} or "cyan" not in names
        assert {seen.shape for seen in reading.objects} == {"star"} or "stars" not in names


def test_nothing_changes_nothing():
    scene = scenes.training_scene(3)
    assert NOTHING.scene(scene) == scene
    assert together() == NOTHING


def test_every_lora_lies_beside_its_recipe():
    assert all(lora_file(name).is_file() for name in CHANGES)

"""The scenes that the demo model learns: sampling, drawing, captions."""

import numpy as np
import pytest

from tools.demo import captions, scenes


def test_a_seed_gives_the_same_scene_and_picture_again():
    for seed in range(20):
        first, second = scenes.training_scene(seed), scenes.training_scene(seed)
        assert first == second
        assert np.array_equal(scenes.draw(first), scenes.draw(second))
    assert scenes.training_scene(0) != scenes.training_scene(1)


def test_pictures_are_uint8_of_the_stated_size():
    picture = scenes.draw(scenes.training_scene(3))
    assert picture.dtype == np.uint8
    assert picture.shape == (scenes.SIDE, scenes.SIDE, 3)


def test_captions_parse_back_into_what_the_scene_shows():
    rng = np.random.default_rng(0)
    unsaid_size = unsaid_background = 0
    for seed in range(2000):
        scene = scenes.training_scene(seed)
        said = captions.parse(captions.caption(scene, rng))
        assert said.relation == scene.relation
        assert said.background in {None, scene.background}
        unsaid_background += said.background is None
        for stated, thing in zip(said.objects, scene.things, strict=True):
            assert stated[1:] == (thing.colour, thing.shape)
            assert stated[0] in {None, thing.size}
            unsaid_size += stated[0] is None
    assert 800 < unsaid_background < 1200
    assert 1200 < unsaid_size < 2000


def test_every_word_of_every_caption_is_in_the_word_list():
    rng = np.random.default_rng(1)
    known = set(captions.words())
    said = {word for seed in range(3000) for word in captions.caption(scenes.training_scene(seed), rng).split()}
    assert said == known


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a green star on a white background", (((None, "green", "star"),), "white", None)),
        (
            "a picture of a small red circle to the left of an orange ring",
            ((("small", "red", "circle"), (None, "orange", "ring")), None, "left of"),
        ),
    ],
)
def test_known_captions(text, expected):
    assert captions.parse(text) == captions.Statement(*expected)


@pytest.mark.parametrize("text", ["", "a dragon", "a red circle and", "a red circle above", "red circle"])
def test_other_text_is_refused(text):
    with pytest.raises(ValueError, match="not a caption"):
        captions.parse(text)


def test_held_out_pairs_never_occur_in_training():
    assert len(scenes.HELD_OUT) == 5
    seen = {(thing.colour, thing.shape) for seed in range(20_000) for thing in scenes.training_scene(seed).things}
    assert not seen & scenes.HELD_OUT
    assert len(seen) == 48 - 5


def test_evaluation_prompts_are_fixed_and_hold_the_held_out_pairs_in_known_share():
    prompts = captions.evaluation_prompts()
    assert prompts == captions.evaluation_prompts()
    groups = [prompt.group for prompt in prompts]
    assert {group: groups.count(group) for group in set(groups)} == {"single": 450, "held-out": 50, "two": 500}
    for prompt in prompts:
        said = captions.parse(prompt.text)
        held_out = [stated[1:] in scenes.HELD_OUT for stated in said.objects]
        assert len(said.objects) == (2 if prompt.group == "two" else 1)
        assert held_out == [prompt.group == "held-out"] * len(said.objects)


def test_two_objects_never_touch_and_stand_in_their_relation():
    for seed in range(2000):
        scene = scenes.training_scene(seed)
        for thing in scene.things:
            half = scenes.SIZES[thing.size] / 2
            assert half <= thing.x <= scenes.SIDE - half
            assert half <= thing.y <= scenes.SIDE - half
        if scene.relation is None:
            continue
        first, second = scene.things
        dx, dy = scenes.RELATIONS[scene.relation]
        apart = (first.x - second.x) * dx + (first.y - second.y) * dy
        assert apart >= (scenes.SIZES[first.size] + scenes.SIZES[second.size]) / 2 + 3.99

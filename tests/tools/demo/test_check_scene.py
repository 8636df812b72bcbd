"""The independent checker: how often it is right, and what it refuses."""

import numpy as np
import pytest

from tools.demo import captions, scenes
from tools.demo.check_scene import agrees, matches, read

COUNT = 2000
FIRST_SEED = 700_000_000


@pytest.fixture(scope="module")
def examples():
    """Scenes, their full statements, the statements of a caption, and readings."""
    found = []
    for seed in range(FIRST_SEED, FIRST_SEED + COUNT):
        rng = np.random.default_rng(seed)
        # All 48 pairs, held-out ones included: the checker must read them too.
        every = scenes.pairs(held_out=False) + scenes.pairs(held_out=True)
        scene = scenes.sample_scene(rng, int(rng.integers(1, 3)), every)
        objects = tuple((thing.size, thing.colour, thing.shape) for thing in scene.things)
        full = captions.Statement(objects, scene.background, scene.relation)
        said = captions.parse(captions.caption(scene, rng))
        found.append((scene, full, said, read(scenes.draw(scene))))
    return found


def shows(scene, said):
    """Whether a scene shows a statement, from the scene's own record."""
    things = [(thing.size, thing.colour, thing.shape) for thing in scene.things]
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above", None: None}
    orders = [(things, scene.relation), (things[::-1], opposite[scene.relation])]
    return said.background in {None, scene.background} and any(
        len(order) == len(said.objects)
        and said.relation == relation
        and all(s[1:] == t[1:] and s[0] in {None, t[0]} for s, t in zip(said.objects, order, strict=True))
        for order, relation in orders
    )


def test_true_renders_are_accepted(examples):
    accepted = sum(agrees(reading, full) for _, full, _, reading in examples)
    assert accepted / COUNT >= 0.995


def test_captions_of_other_scenes_are_refused(examples):
    tried = wrongly = 0
    for index, (scene, _, _, reading) in enumerate(examples):
        for step in (1, 7, 31):
            said = examples[(index + step) % COUNT][2]
            if not shows(scene, said):
                tried += 1
                wrongly += agrees(reading, said)
    assert tried > 2 * COUNT
    assert wrongly / tried <= 0.01


def test_captions_off_by_one_attribute_are_refused(examples):
    rng = np.random.default_rng(5)
    tried = wrongly = 0
    for scene, full, _, reading in examples:
        size, colour, shape = full.objects[0]
        rest = full.objects[1:]
        for changed in (
            ({"small": "large", "large": "small"}[size], colour, shape),
            (size, str(rng.choice([c for c in scenes.COLOURS if c != colour])), shape),
            (size, colour, str(rng.choice([s for s in scenes.SHAPES if s != shape]))),
        ):
            said = captions.Statement((changed, *rest), full.background, full.relation)
            if not shows(scene, said):
                tried += 1
                wrongly += agrees(reading, said)
    assert wrongly / tried <= 0.01


def blurred(picture):
    """A 3 x 3 binomial blur, about what an autoencoder loses."""
    padded = np.pad(picture.astype(float), ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    return np.round((rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 16).astype(np.uint8)


def test_mild_blur_and_noise_are_tolerated(examples):
    rng = np.random.default_rng(2)
    right = 0
    for scene, full, _, _ in examples[:200]:
        picture = blurred(scenes.draw(scene)).astype(float) + rng.normal(0, 4, (scenes.SIDE, scenes.SIDE, 3))
        right += agrees(read(np.clip(picture, 0, 255).astype(np.uint8)), full)
    assert right >= 196


def test_damage_is_refused():
    scene = scenes.Scene((scenes.Thing("large", "red", "circle", 30.0, 30.0),), "white")
    picture = scenes.draw(scene)
    text = "a large red circle on a white background"
    assert matches(picture, text)
    stray = picture.copy()
    stray[52:60, 52:60] = scenes.COLOURS["blue"]
    assert not matches(stray, text)
    halved = picture.copy()
    halved[:, :30] = 255
    assert not matches(halved, text)
    assert not matches(halved, "a red circle")
    two_colours = picture.copy()
    two_colours[:30][(two_colours[:30] != 255).any(-1)] = scenes.COLOURS["blue"]
    assert not matches(two_colours, text)


@pytest.mark.parametrize("seed", range(3))
def test_noise_shows_nothing(seed):
    noise = np.random.default_rng(seed).integers(0, 256, (scenes.SIDE, scenes.SIDE, 3), dtype=np.uint8)
    assert read(noise).fault is not None

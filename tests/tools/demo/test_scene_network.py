"""What the network of scenes reads off a prompt, and where it lays things."""

import numpy as np
import pytest
import torch

from engines.tokenizer import TextTokenizer
from tools.demo.captions import caption
from tools.demo.scene_network import SceneNetwork, templates
from tools.demo.scene_reward import SceneReward
from tools.demo.scenes import BACKGROUNDS, COLOURS, SHAPES, draw, training_scene


@pytest.fixture(scope="module")
def reward():
    return SceneReward()


@pytest.fixture(scope="module")
def read(reward, tmp_path_factory):
    """Prompts → ids."""
    folder = tmp_path_factory.mktemp("reward")
    entry, spelled = reward.tokenizer()
    (folder / entry.file).write_text(spelled, encoding="utf-8")
    reader = TextTokenizer.of(folder / entry.file, entry)
    return lambda prompts: torch.from_numpy(reader.encode(prompts).ids)


def test_it_reads_what_captions_say(reward, read):
    texts = ["a picture of an orange star under a small blue ring in front of a gray background", "a large red cross", "no"]
    said = reward.network().read(read(texts))
    colours, shapes = list(COLOURS), list(SHAPES)
    assert said["colour"].tolist() == [[colours.index("orange"), colours.index("blue")], [colours.index("red")] * 2, [0, 0]]
    assert said["shape"][:2].tolist() == [[shapes.index("star"), shapes.index("ring")], [shapes.index("cross")] * 2]
    assert said["size"][:2].tolist() == [[-1, 0], [1, 1]]
    assert said["ground"].tolist() == [list(BACKGROUNDS).index("gray"), -1, -1]
    assert said["two"].tolist() == [True, False, False]
    assert said["relation"].tolist() == [3, -1, -1]


def test_templates_are_the_drawings_own():
    found = templates()
    assert found.shape == (6, 6, 9, 35, 35)
    assert found[1, 1, 4].sum() == pytest.approx(16 * 16, abs=1)  # a small square, not moved
    assert found[:, :, :, [0, -1]].max() == 0
    assert found[0, 0, 5].sum() == pytest.approx(found[0, 0, 3].sum(), rel=1e-2)
    assert not np.allclose(found[0, 0, 5], found[0, 0, 3])


def test_things_are_laid_where_they_are(reward, read, monkeypatch):
    scenes = [training_scene(number) for number in range(24)]
    texts = [caption(each, np.random.default_rng(number)) for number, each in enumerate(scenes)]
    seen, placed = [], SceneNetwork.placed
    monkeypatch.setattr(SceneNetwork, "placed", lambda *given: seen.extend(placed(*given)) or seen)
    reward.network()(torch.from_numpy(np.stack([draw(each) for each in scenes])).float() / 255, read(texts))
    for index, scene in enumerate(scenes):
        for (_, y, x), thing in zip(seen, scene.things, strict=False):
            assert abs(float(y[index]) + 0.5 - thing.y) <= 1
            assert abs(float(x[index]) + 0.5 - thing.x) <= 1

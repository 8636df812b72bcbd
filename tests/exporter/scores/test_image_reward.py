"""ImageReward as a score, from a recipe's or a sweep's own words."""

import numpy as np
import pytest

from engines.errors import RecipeError, UnsupportedError
from exporter import scores
from exporter.models.blip_reward import BlipReward
from tests.exporter.models import image_rewards


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return image_rewards.save(tmp_path_factory.mktemp("reward") / "tiny")


def test_a_picture_is_held_to_its_own_prompt(folder):
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    score = scores.load("image_reward", {"model": "tiny"}, folder.parent)
    assert (score.label, score.higher_is_better, score.compares) == ("ImageReward", True, False)
    judge = BlipReward.find("tiny", None, None, folder.parent)
    texts = ["a red circle", "the star of the square"]
    found, crossed = score.of(images, texts, None), judge.scores(images, texts[::-1])
    assert found == pytest.approx(judge.scores(images, texts), abs=1e-5)
    assert np.abs(np.array(found) - crossed).min() > 0.1
    assert isinstance(found[0], float)


def test_other_weights_are_another_score(folder, tmp_path):
    image_rewards.save(tmp_path / "tiny", seed=1)
    assert len({scores.digest("image_reward", {"model": "tiny"}, root) for root in (folder.parent, tmp_path)}) == 2


@pytest.mark.parametrize(
    ("options", "kind", "told"),
    [
        ({"model": "no such"}, RecipeError, r"image_reward\.model: 'no such' is neither a file or folder"),
        ({"model": "tiny", "modle": 1}, RecipeError, r"image_reward\.modle: unknown field; did you mean 'model'"),
        ({"model": ""}, RecipeError, r"image_reward\.model: "),
        ({"model": "tiny", "processor": "."}, UnsupportedError, r"has no tokenizer\. Name the model that has it"),
    ],
)
def test_what_cannot_be_judged_by_is_told_at_once(folder, options, kind, told):
    with pytest.raises(kind, match=told):
        scores.load("image_reward", options, folder.parent)

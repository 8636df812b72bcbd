"""CLIP score: 100 times the cosine, from a recipe's or a sweep's own words."""

import numpy as np
import pytest

from engines.errors import RecipeError
from exporter import scores
from exporter.models.dual_encoder import DualEncoder
from tests.exporter import models


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return models.save_dual_encoder(tmp_path_factory.mktemp("clip") / "pair")


def test_a_picture_is_held_to_its_own_prompt(folder):
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)
    score = scores.load("clip", {"model": "pair"}, folder.parent)
    assert (score.higher_is_better, score.compares) == (True, False)
    found = score.of(images, ["a red circle", "a star"], None)
    pair = DualEncoder(folder, folder)
    cosines = pair.pictures(images) @ pair.texts(["a red circle", "a star"]).T
    assert found == pytest.approx(100 * np.diag(cosines), abs=1e-4)
    assert abs(cosines[0, 0] - cosines[0, 1]) > 1e-3


def test_other_weights_are_another_score(folder, tmp_path):
    models.save_dual_encoder(tmp_path / "pair", seed=1)
    digests = {scores.digest("clip", {"model": "pair"}, root) for root in (folder.parent, tmp_path)}
    assert len(digests) == 2
    (tmp_path / "mine.py").write_text("a")
    assert scores.digest("mine.py", {}, tmp_path) not in {"", *digests}
    assert scores.digest("psnr", {}, tmp_path) == ""


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, r"clip\.model: .*missing"),
        ({"model": "no such"}, r"clip\.model: 'no such' is neither a folder"),
        ({"model": "pair", "modle": 1}, r"clip\.modle: unknown field; did you mean 'model'"),
        ({"model": ""}, r"clip\.model: "),
    ],
)
def test_what_cannot_be_judged_by_is_told_at_once(folder, options, told):
    with pytest.raises(RecipeError, match=told):
        scores.load("clip", options, folder.parent)

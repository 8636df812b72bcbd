"""CMMD: the definition, written out pair by pair; and what is compared with."""

import itertools
import math

import numpy as np
import pytest
from PIL import Image

from engines.errors import UnsupportedError
from exporter import scores
from exporter.models.dual_encoder import DualEncoder
from tests.exporter import models
from tests.exporter.scores import seen


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    made = tmp_path_factory.mktemp("cmmd")
    models.save_dual_encoder(made / "pair")
    return made


def test_the_mean_of_the_shares_is_the_unbiased_squared_discrepancy(root):
    own, others = seen.pictures(7, 0), seen.pictures(5, 1, low=90)
    pair = DualEncoder(root / "pair", root / "pair")

    def kernel(one, other):
        return math.exp(-float(((one - other) ** 2).sum()) / 200)

    def within(rows):
        return np.mean([kernel(one, other) for one, other in itertools.permutations(rows, 2)])

    own_rows, other_rows = pair.pictures(own), pair.pictures(others)
    between = np.mean([kernel(one, other) for one in own_rows for other in other_rows])
    wanted = 1000 * (within(own_rows) + within(other_rows) - 2 * between)
    found = scores.load("cmmd", {"model": "pair"}, root).of(own, [""] * 7, others)
    assert np.mean(found) == pytest.approx(wanted, abs=1e-9)


def test_pictures_are_compared_with_the_references(root):
    dice = np.random.default_rng(0)
    dark, light = (dice.integers(low, low + 128, (6, 16, 16, 3)).astype(np.uint8) for low in (0, 128))
    score = scores.load("cmmd", {"model": "pair"}, root)
    assert (score.higher_is_better, score.compares) == (False, True)
    assert np.mean(score.of(light, [""] * 6, dark)) > np.mean(score.of(light, [""] * 6, light))
    with pytest.raises(UnsupportedError, match=r"there is one\. Give more prompts"):
        score.of(light[:1], [""], dark)


def test_pictures_are_compared_with_a_folders(root):
    dice = np.random.default_rng(0)
    (root / "real").mkdir()
    for number, side in enumerate((16, 20, 24)):
        Image.fromarray(dice.integers(0, 256, (side, 16, 3)).astype(np.uint8)).save(root / "real" / f"{number}.png")
    score = scores.load("cmmd", {"model": "pair", "reference": "real"}, root)
    assert not score.compares
    found = score.of(dice.integers(0, 256, (4, 16, 16, 3)).astype(np.uint8), ["a"] * 4, None)
    assert len(found) == 4
    before = scores.digest("cmmd", {"model": "pair", "reference": "real"}, root)
    Image.new("RGB", (16, 16)).save(root / "real" / "3.png")
    assert scores.digest("cmmd", {"model": "pair", "reference": "real"}, root) != before
    with pytest.raises(UnsupportedError, match="none has 0 pictures; it takes two"):
        scores.load("cmmd", {"model": "pair", "reference": "none"}, root)

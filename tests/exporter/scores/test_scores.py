"""How a score is found: a metric, a plugin, a file; and what is wrong with one that is not."""

import numpy as np
import pytest

from engines.errors import RecipeError, UnsupportedError
from exporter import scores
from exporter.parity.metrics import METRICS


@pytest.fixture
def images():
    dice = np.random.default_rng(0)
    wanted = dice.integers(0, 256, (3, 16, 16, 3)).astype(np.uint8)
    return np.clip(wanted + dice.integers(-9, 10, wanted.shape), 0, 255).astype(np.uint8), wanted


@pytest.mark.parametrize("name", list(METRICS))
def test_a_metric_is_a_score_of_each_picture(images, name, tmp_path):
    got, wanted = images
    score = scores.load(name, {}, tmp_path)
    found = score.of(got, ["a"] * 3, wanted)
    for index in range(3):
        alone = METRICS[name].of(got[index : index + 1] / 255, wanted[index : index + 1] / 255, 1.0)
        assert found[index] == pytest.approx(alone, rel=1e-4)
    assert score.higher_is_better == METRICS[name].higher_is_better
    assert score.compares
    with pytest.raises(TypeError, match="was given none"):
        score.of(got, ["a"] * 3, None)


def test_a_name_is_that_of_the_file():
    assert scores.name_of("psnr") == "psnr"
    assert scores.name_of("../tools/mine.py") == "mine"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = 1\n", "must state __all__ with one name"),
        ("__all__ = ['a', 'b']\na = b = 1\n", "must state __all__ with one name"),
    ],
)
def test_a_file_without_one_public_name_is_refused(tmp_path, text, told):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(UnsupportedError, match=told):
        scores.load("mine.py", {}, tmp_path)


def test_what_is_not_there_says_what_is(tmp_path):
    with pytest.raises(RecipeError, match=r"unknown score 'pnsr'; did you mean 'psnr'\?"):
        scores.load("pnsr", {}, tmp_path)
    with pytest.raises(RecipeError, match="counts from the folder"):
        scores.load("none.py", {}, tmp_path)
    with pytest.raises(RecipeError, match="it takes no options"):
        scores.load("psnr", {"a": 1}, tmp_path)

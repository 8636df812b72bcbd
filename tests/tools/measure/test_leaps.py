"""Steps of student and teacher are mixed as a row says."""

import json

import numpy as np
import pytest
from click import ClickException
from click.testing import CliRunner

from exporter.recipe.schema import Recipe
from tests.exporter import models
from tools.demo.captions import Prompt
from tools.measure import leaps
from tools.measure.leaps import Play, rows

TEXTS = ["a red circle", "the blue square"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return models.save_sdxl(tmp_path_factory.mktemp("source"))


def play(source, told="", **options):
    options = {"data": "nowhere", "steps": 1, "to": 2, "teacher_steps": 4, "guidance": 3.0} | options
    text = json.dumps(
        {
            "model": {"source": str(source)},
            "sampler": {"scheduler": "EulerDiscreteScheduler", "steps": [2]},
            "shapes": {"height": [32] * 3, "width": [32] * 3},
            "components": {"unet": {"passes": [{"trajectory": options}]}},
        }
    )
    return Play(Recipe.parse(text, "x"), [Prompt(text, "two") for text in TEXTS], source / "unet", "cpu", told)


def test_who_makes_which():
    assert rows(3) == ["sss", "tss", "sts", "sst", "stt", "ttt"]


def test_an_unguided_teacher_of_as_many_steps_draws_what_its_own_network_draws(source):
    same, other = play(source, teacher_steps=2, guidance=1.0), play(source, teacher_steps=2)
    pictures = {row: same(row, TEXTS, 0) for row in ("ss", "st", "tt")}
    assert pictures["ss"].shape == (2, 32, 32, 3)
    assert np.abs(pictures["ss"].astype(int) - pictures["tt"]).max() <= 1
    assert np.abs(pictures["ss"].astype(int) - pictures["st"]).max() <= 1
    assert np.abs(other("ss", TEXTS, 0).astype(int) - other("tt", TEXTS, 0)).max() > 1  # guidance is the teacher's alone


def test_unequal_steps_are_walked_in_their_own_time(source):
    long, short = (play(source, leaps=leaps) for leaps in ([3, 1], [1, 3]))
    assert np.array_equal(long("tt", TEXTS, 0), short("tt", TEXTS, 0))
    assert not np.array_equal(long("ss", TEXTS, 0), short("ss", TEXTS, 0))


def test_a_picture_depends_on_its_own_seed_alone(source):
    drawn = play(source)
    both, second = drawn("st", TEXTS, 5), drawn("st", TEXTS[1:], 6)
    assert np.abs(both[1:].astype(int) - second).max() <= 1


def test_other_leaps_than_the_recipe_s(source):
    long, named = play(source, leaps=[3, 1]), play(source)
    assert not np.array_equal(long("ss", TEXTS, 0), named("ss", TEXTS, 0))
    assert np.array_equal(long("ss", TEXTS, 0), play(source, told="3,1")("ss", TEXTS, 0))
    with pytest.raises(ClickException, match="leaps \\[3, 2\\] are 2 steps over 5"):
        play(source, told="3,2")


def test_a_row_that_is_none(tmp_path, source, monkeypatch):
    monkeypatch.setattr(leaps, "Play", lambda *_: play(source))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: {source: demo}\nsampler: {steps: [2]}\nshapes: {height: [64, 64, 64], width: [64, 64, 64]}\n")
    done = CliRunner().invoke(leaps.main, [str(recipe), "--rows", "sx"])
    assert done.exit_code == 2
    assert "sx is not 2 letters s or t" in done.output

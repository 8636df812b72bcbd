"""The gate for speed, with rivals that take as long as the test says."""

from contextlib import contextmanager

import pytest
from PIL import Image

from engines.errors import RecipeError, SpeedError
from exporter.bench import run, speed_gate
from exporter.bench.stopwatch import Stopwatch
from exporter.recipe.schema import FasterThan, Recipe
from tests.engines import small

RECIPE = """\
model: {source: somebody/something}
sampler: {steps: [10]}
shapes: {height: [64, 64, 64], width: [64, 64, 64]}
checks: {faster_than: {against: %s, ratio: 1.5}}
"""


@pytest.fixture
def rival(monkeypatch):
    """Sets how many times as long as the bundle the rival takes; the clock is the test's."""
    asked, clock = {"times": 2.0}, [0.0]

    def contestant(name, seconds):
        def draw(batch):
            clock[0] += seconds
            return [Image.new("RGB", (8, 8))] * batch

        return run.Contestant(name, "a test", draw, Stopwatch(lambda: clock[0]))

    @contextmanager
    def contestants(path, against, task, *, root):
        asked.update(path=path, against=against, root=root, steps=task.steps)
        yield [contestant("own", 1.0), contestant("rival", asked["times"])]

    monkeypatch.setattr(run, "contestants", contestants)
    return asked


@pytest.fixture
def path(tmp_path):
    return small.make(tmp_path / "small").folder


def test_a_bundle_that_is_fast_enough_passes_with_its_figures(path, rival, tmp_path):
    told = speed_gate.hold(path, FasterThan(against="diffusers", ratio=2.0), tmp_path)
    assert told.startswith("speed: 2.00 times as fast as diffusers, at least 2 is asked: 1000 ms (a test) against 2000 ms, ")
    assert "medians of 7 interleaved runs, 2 steps, 32 x 32 px" in told
    assert (rival["path"], rival["against"], rival["root"], rival["steps"]) == (path, ["diffusers"], tmp_path, 2)


def test_a_bundle_that_is_too_slow_does_not(path, rival, tmp_path):
    rival["times"] = 1.25
    with pytest.raises(SpeedError, match=r"too slow: 1\.25 times as fast as diffusers, at least 1\.3 is asked") as caught:
        speed_gate.hold(path, FasterThan(against="diffusers", ratio=1.3), tmp_path)
    assert caught.value.exit_code == 5


def test_a_rival_bundle_lies_beside_the_recipe(path, rival):
    speed_gate.hold(path, FasterThan(against="small"), path.parent)
    assert rival["against"] == [str(path)]


@pytest.mark.parametrize("against", ["diffusers-compile", "onnxruntime", "SMALL"])
def test_whom_a_recipe_may_name(against, path):
    speed_gate.refuse(Recipe.parse(RECIPE % against.replace("SMALL", "small"), "x", path.parent))


def test_a_rival_that_is_not_there_is_told_before_anything_is_built():
    recipe = Recipe.parse(RECIPE % "difusers", "x", shown="x.yaml")
    with pytest.raises(RecipeError, match="did you mean 'diffusers'") as caught:
        speed_gate.refuse(recipe)
    assert recipe.located(caught.value.problems)[0].startswith("x.yaml:4  checks.faster_than.against: 'difusers' is not")


def test_a_ratio_is_positive():
    with pytest.raises(RecipeError, match=r"checks\.faster_than\.ratio"):
        Recipe.parse(RECIPE.replace("1.5", "0") % "diffusers", "x")

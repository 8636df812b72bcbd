"""What a recipe asks of a traced pipeline in vain, before anything is loaded."""

from types import SimpleNamespace
from typing import Any

import diffusers
import pytest

from engines.errors import RecipeError
from exporter.families.tracing.problems import problems, refuse
from exporter.recipe.schema import Recipe

RECIPE = """
model: {source: model}
sampler: {steps: [2], guidance: %s}
shapes: {height: [32, 32, 64], width: [32, 32, 32], batch: [1, 1, 1]}
%s"""
GUIDED = "{mode: classifier_free, scale: 4.0}"


def survey(*, compared: bool = True, used: bool = True, rounds: bool = False, always: bool = False) -> Any:
    def sides(height: int, width: int) -> tuple[int, int]:
        return ((height // 64 * 64 if rounds else height) // 2, width // 2)

    scale = SimpleNamespace(compared=compared, used=used)
    return SimpleNamespace(name="APipeline", scale=scale, sides=sides, always_guided=always, lone=False, earlier=(), fills=False)


@pytest.mark.parametrize(
    ("guidance", "more", "facts", "told"),
    [
        (GUIDED, "", {}, []),
        ("{mode: none}", "", {}, ["hands guidance_scale to its network; use embedded"]),
        ("{mode: none}", "", {"used": False}, []),
        (GUIDED, "", {"compared": False, "always": True}, []),
        (GUIDED, "", {"compared": False}, ["never runs two branches"]),
        ("{mode: embedded, scale: 3.5}", "", {"used": False}, ["does not use a guidance scale"]),
        (GUIDED, "", {"rounds": True}, ["shapes.height: 32 px, of which APipeline makes 0; write that"]),
        (GUIDED, "prompts: {weights: compel}", {}, ["leave chunks, weights and clip_skip out"]),
        ("{mode: classifier_free, scale: 4.0, interval: [0.0, 0.5]}", "", {}, ["sampler.guidance.interval: is for Stable"]),
    ],
)
def test_each_is_a_line_that_says_what_to_write(guidance: str, more: str, facts: dict[str, bool], told: list[str]):
    found = problems(survey(**facts), Recipe.parse(RECIPE % (guidance, more), "micro"), 2)
    assert len(found) == len(told)
    assert all(words in line for words, line in zip(told, found, strict=True))


def test_perturbed_attention_of_a_followed_pipeline_is_its_own():
    refuse(Recipe.parse(RECIPE % (GUIDED, ""), "micro"))
    with pytest.raises(RecipeError, match="take one with PAG in its name, whose pag_scale is an input"):
        refuse(Recipe.parse(RECIPE % ("{mode: none, pag: {scale: 3.0}}", ""), "micro"))


@pytest.mark.parametrize(("first", "left"), [(1.0, 0.0), (0.9, 0.1)])
def test_a_picture_that_shows_through_the_first_noise_is_told(first: float, left: float):
    given = survey()
    given.fills, given.pipeline = True, SimpleNamespace(scheduler=diffusers.FlowMatchEulerDiscreteScheduler())
    given.times = lambda _height, _width, _steps: {"sigmas": [first, 0.5]}
    found = problems(given, Recipe.parse(RECIPE % (GUIDED, ""), "micro"), 2)
    assert [f"with {left:.2%} of its picture under the noise" in line for line in found] == [True] * bool(left)

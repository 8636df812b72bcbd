"""What a recipe asks of a traced pipeline in vain, before anything is loaded."""

from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from exporter.families.tracing.problems import problems, problems_of_call
from exporter.recipe.schema import Recipe

RECIPE = """
model: {source: model}
sampler: {steps: [2], guidance: %s}
shapes: {height: [32, 32, 64], width: [32, 32, 32], batch: [1, 1, 1]}
%s"""
GUIDED = "{mode: classifier_free, scale: 4.0}"


def survey(*, compared: bool = True, used: bool = True, rounds: bool = False) -> Any:
    def sides(height: int, width: int) -> tuple[int, int]:
        return ((height // 64 * 64 if rounds else height) // 2, width // 2)

    return SimpleNamespace(name="APipeline", scale=SimpleNamespace(compared=compared, used=used), sides=sides)


@pytest.mark.parametrize(
    ("guidance", "more", "facts", "told"),
    [
        (GUIDED, "", {}, []),
        ("{mode: none}", "", {}, ["hands guidance_scale to its network; use embedded"]),
        ("{mode: none}", "", {"used": False}, []),
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


class APipeline:
    def __call__(
        self,
        prompt: str,
        image: Image.Image | None = None,
        height: int = 64,
        pag_scale: float = 3.0,
        control_mode: list[int] | None = None,
        output_type: str = "pil",
    ) -> None: ...


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ({"control_mode": [1]}, []),
        ({"control_mod": 1}, ["control_mod: APipeline has no such argument; did you mean 'control_mode'?"]),
        ({"image": "a.png", "pag_scale": 1.0}, ["image: is an input of the bundle", "pag_scale: is an input of the bundle"]),
        ({"height": 8, "prompt": "a"}, ["height: is shapes.height; leave it out here", "prompt: is what a bundle is asked for"]),
        ({"output_type": "np"}, ["output_type: is not a recipe's to say"]),
    ],
)
def test_an_argument_of_the_call_is_one_that_nothing_else_says(call: dict[str, Any], told: list[str]):
    found = problems_of_call(APipeline(), call)
    assert len(found) == len(told)
    assert all(line.startswith(f"model.call.{words}") for words, line in zip(told, found, strict=True))

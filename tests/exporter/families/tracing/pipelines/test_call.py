"""Arguments of a pipeline's call that a recipe hands on."""

from typing import Any

import pytest
from PIL import Image

from exporter.families.tracing.pipelines import call


class APipeline:
    def __call__(
        self,
        prompt: str,
        image: Image.Image | None = None,
        height: int = 64,
        pag_scale: float = 3.0,
        control_mode: list[int] | None = None,
        crops: tuple[int, int] = (0, 0),
        output_type: str = "pil",
    ) -> None: ...


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"control_mode": [1]}, []),
        ({"control_mod": 1}, ["control_mod: APipeline has no such argument; did you mean 'control_mode'?"]),
        ({"image": "a.png", "pag_scale": 1.0}, ["image: is an input of the bundle", "pag_scale: is an input of the bundle"]),
        ({"height": 8, "prompt": "a"}, ["height: is shapes.height; leave it out here", "prompt: is what a bundle is asked for"]),
        ({"output_type": "np"}, ["output_type: is not a recipe's to say"]),
    ],
)
def test_an_argument_of_the_call_is_one_that_nothing_else_says(given: dict[str, Any], told: list[str]):
    found = call.problems(APipeline(), given)
    assert len(found) == len(told)
    assert all(line.startswith(f"model.call.{words}") for words, line in zip(told, found, strict=True))


def test_lists_become_tuples_where_the_call_takes_tuples():
    given = {"crops": [1, 2], "control_mode": [3], "height": 8}
    assert call.as_taken(APipeline(), given) == {"crops": (1, 2), "control_mode": [3], "height": 8}


def test_only_what_is_a_picture_of_the_call_is_a_list_of_some():
    assert call.picture_problems(APipeline(), {"image": 2}) == []
    first, second = call.picture_problems(APipeline(), {"imag": 2, "pag_scale": 1})
    assert first == "model.pictures.imag: is no picture that APipeline takes; did you mean 'image'?"
    assert second.startswith("model.pictures.pag_scale: is no picture that APipeline takes")

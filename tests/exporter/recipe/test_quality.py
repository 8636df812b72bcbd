"""What a recipe asks of quality: floors and their prompts."""

import pytest

from engines.errors import RecipeError
from exporter.recipe.quality import QualityFloor
from exporter.recipe.schema import Recipe

TEXT = """\
model: {source: x}
sampler: {steps: [2]}
shapes: {height: [32, 32, 64], width: [32, 32, 64]}
checks: {quality: {psnr: {at_least: FLOOR, prompts: prompts.txt}}}
"""


GOOD = [("0.98 of source", 0.98, None), ("1 of source", 1.0, None), ("25", None, 25.0)]


@pytest.mark.parametrize(("text", "share", "number"), GOOD)
def test_a_floor_is_a_number_or_a_share(text, share, number):
    floor = Recipe.parse(TEXT.replace("FLOOR", text), "mine").checks.quality["psnr"]
    assert floor.share == share
    if number is not None:
        assert floor.at_least == number


@pytest.mark.parametrize("text", ["much", "0.98 of sauce", "-1 of source", "98% of source"])
def test_anything_else_says_what_to_write(text):
    told = r"mine\.yaml:4  checks\.quality\.psnr\.at_least: .* is no floor; write a number, or such as"
    with pytest.raises(RecipeError, match=told):
        Recipe.parse(TEXT.replace("FLOOR", text), "mine")


def test_prompts_are_the_lines_of_a_file(tmp_path):
    (tmp_path / "prompts.txt").write_text("one\n\n two \nthree\n")
    asked = {"at_least": 1.0, "prompts": "prompts.txt"}
    assert QualityFloor(**asked).texts(tmp_path) == ("one", "two", "three")
    assert QualityFloor(**asked, count=2).texts(tmp_path) == ("one", "two")
    with pytest.raises(RecipeError, match="has 3 prompts, and 4 are needed"):
        QualityFloor(**asked, count=4).texts(tmp_path)
    with pytest.raises(RecipeError, match="cannot be read"):
        QualityFloor(at_least=1.0, prompts="none.txt").texts(tmp_path)

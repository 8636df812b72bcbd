"""What is recorded of the source: every number of steps, with guidance and without."""

import pytest

from exporter.recipe.schema import Recipe
from exporter.reference.record import settings

TEXT = """\
model: {source: a}
sampler: {steps: %s, guidance: %s}
shapes: {height: [32, 32, 64], width: [32, 32, 64]}
"""


@pytest.mark.parametrize("steps", [[25, 10], [4, 8], [30]], ids=str)
def test_every_number_of_steps_runs_with_guidance_and_without(steps):
    found = settings(Recipe.parse(TEXT % (steps, "{mode: classifier_free, scale: 3}"), "x"))
    assert [setting.steps for setting in found if setting.guidance_scale == 1.0] == steps
    assert {setting.steps for setting in found if setting.guidance_scale == 3} == set(steps)
    assert len({setting.label for setting in found}) == len(found)


def test_without_guidance_there_is_none_to_switch_off():
    found = settings(Recipe.parse(TEXT % ([4, 8], "{mode: none}"), "x"))
    assert [setting.steps for setting in found] == [4, 8, 4]
    assert {setting.guidance_scale for setting in found} == {None}


@pytest.mark.parametrize("scale", [0, 0.5, 1])
def test_where_the_recipe_s_scale_is_off_it_runs_with_guidance_too(scale):
    found = settings(Recipe.parse(TEXT % ([4, 8], f"{{mode: classifier_free, scale: {scale}}}"), "x"))
    assert [setting.guidance_scale for setting in found] == [scale] * 3 + [3.0] * 2
    assert [setting.label for setting in found][-2:] == ["guidance on, 4 steps", "guidance on, 8 steps"]


def test_a_model_whose_guidance_is_never_off_is_recorded_with_it_alone():
    found = settings(Recipe.parse(TEXT % ([4, 8], "{mode: classifier_free, scale: 3}"), "x"), off=None)
    assert [setting.guidance_scale for setting in found] == [3] * 3


@pytest.mark.parametrize(("guidance", "negative"), [("{mode: classifier_free, scale: 3}", "blurry"), ("{mode: none}", None)])
def test_a_negative_prompt_is_recorded_where_a_branch_reads_it(guidance, negative):
    text = TEXT % ([4], guidance) + "checks: {negative_prompt: blurry}\n"
    assert {setting.negative_prompt for setting in settings(Recipe.parse(text, "x"))} == {negative}


def test_it_runs_from_an_image_and_within_a_mask_where_the_source_does():
    recipe = Recipe.parse(TEXT % ([4, 8], "{mode: none}"), "x")
    plain = len(settings(recipe))
    found = {starts: settings(recipe, starts)[plain:] for starts in (("image",), ("mask",), ("image", "mask"))}
    assert [[each.label for each in own] for own in found.values()] == [
        ["from an image"], ["within a mask"], ["from an image", "within a mask"],
    ]  # fmt: skip
    assert [(each.steps, each.strength, each.masked) for each in found["image", "mask"]] == [(4, 0.6, False), (4, 1.0, True)]


def test_the_prompts_of_a_batch_are_alike_where_texts_are_as_long_as_they_are():
    text = TEXT % ([4], "{mode: none}") + "checks: {prompts: [a, b]}\n"
    recipe = Recipe.parse(text.replace("width: [32, 32, 64]", "width: [32, 32, 64], batch: [1, 1, 2]"), "x")
    assert [setting.prompts for setting in settings(recipe)][1] == ("a", "b")
    assert [setting.prompts for setting in settings(recipe, alike=True)][1] == ("a", "a")

"""A pipeline surveyed with its pictures and without."""

import pytest

from engines.errors import UnsupportedError
from exporter.families.tracing.surveying import surveyed
from tools.coverage.models import MADE


def test_a_pipeline_that_can_do_without_pictures_is_shown_them_where_they_are_wanted():
    made = MADE["flux-kontext"]()
    for name in ("transformer", "vae", "text_encoder", "text_encoder_2"):
        getattr(made, name).to("meta")
    for shown in (False, True):
        found = surveyed(made, {}, "embedded", 32, 32, 2, shown=shown)
        assert found.pictures == ({"image": "image"} if shown else {})
        assert found.piles == shown


def test_the_pipeline_itself_judges_what_its_call_is_given():
    made = MADE["stable-diffusion-xl-controlnet-union"]()
    for name in ("unet", "vae", "text_encoder", "text_encoder_2", "controlnet"):
        getattr(made, name).to("meta")

    def survey(call):
        return surveyed(made, call, "classifier_free", 32, 32, 2, judged=True)

    assert survey({"control_mode": [1]}).pictures == {"control_image": "control_image"}
    with pytest.raises(UnsupportedError, match=r"len\(control_image\) == len\(control_mode\)"):
        survey({"control_mode": [1, 2]})
    with pytest.raises(UnsupportedError, match="must be lower than 4"):
        survey({"control_mode": [7]})


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("qwenimage21", "QwenImage21Pipeline: its own code cannot be followed in transformer"),
        ("qwenimage-edit-pictured", "^The text encoder of this model sees its pictures too"),
    ],
)
def test_of_two_refusals_the_one_is_told_before_which_the_pipeline_comes_farther(name, told):
    made = MADE[name]()
    for each in ("transformer", "vae", "text_encoder"):
        getattr(made, each).to("meta")
    with pytest.raises(UnsupportedError, match=told):
        surveyed(made, {}, "classifier_free", 32, 32, 2)


def test_a_prompt_that_becomes_a_list_is_refused():
    made = MADE["z-image-omni"]()
    for each in ("transformer", "vae", "text_encoder", "siglip"):
        getattr(made, each).to("meta")
    with pytest.raises(UnsupportedError, match="ZImageOmniPipeline encodes each prompt to a list of tensors"):
        surveyed(made, {}, "classifier_free", 32, 32, 2).conditioning  # noqa: B018 - which is found when it is asked for

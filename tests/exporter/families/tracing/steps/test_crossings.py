"""What of a step is made of pictures alone, and the ports that carry it."""

import pytest
import torch

from engines.errors import UnsupportedError
from exporter.families.tracing.following import dry_run
from exporter.families.tracing.steps import crossings
from exporter.families.tracing.surveying import surveyed
from exporter.recipe.schema import Shapes
from tools.coverage import conditioned
from tools.coverage.models import MADE


@pytest.fixture(scope="module")
def survey():
    made = conditioned.MADE["stable-diffusion-controlnet"]()
    for name in ("unet", "controlnet", "vae", "text_encoder"):
        getattr(made, name).to("meta")
    return surveyed(made, {}, "classifier_free", 32, 32, 2)


def test_a_controlnet_s_hint_is_embedded_once_and_open_in_every_length(survey):
    shapes = Shapes(height=(32, 32, 64), width=(32, 48, 48), batch=(1, 1, 2))
    found = crossings.conditions(survey, shapes, 2)
    (crossing,) = found.crossings
    assert (crossing.name, crossing.dtype) == ("image_condition", torch.float32)
    assert crossing.port_shape == ("batch", 2, 8, "latent_height", "latent_width")  # of both branches
    assert (found.components, found.pictures, found.draw) == (("controlnet",), ("image",), None)
    assert found.begun == ("text_encoder", "controlnet")  # the UNet has nothing to do with it


@pytest.mark.parametrize("name", ["flux-controlnet", "stable-diffusion-3-controlnet"])
def test_a_network_of_which_a_pipeline_asks_the_number_format_has_not_begun(name):
    with dry_run.quiet():  # of diffusers about a class of its own
        made = MADE[name]()
    for part in made.components.values():
        if isinstance(part, torch.nn.Module):
            part.to("meta")
    shapes = Shapes(height=(32, 32, 32), width=(32, 32, 32), batch=(1, 1, 1))
    found = crossings.conditions(surveyed(made, {}, "classifier_free" if "3" in name else "embedded", 32, 32, 2), shapes, 2)
    assert "controlnet" in found.begun
    assert "transformer" not in found.begun


def test_lengths_of_one_size_are_numbers(survey):
    shapes = Shapes(height=(32, 32, 32), width=(32, 32, 32), batch=(1, 1, 1))
    assert crossings.conditions(survey, shapes, 2).crossings[0].shape == (8, 16, 16)


AT = {"latent_height": (4, 8), "latent_width": (4, 12)}


def test_a_length_that_is_no_multiple_of_the_latent_s_is_refused():
    at = {"batch": (2, 3), "latent_height": (1, 5), "latent_width": (1, 3)}
    with pytest.raises(UnsupportedError, match=r"Some makes \[1, 3\] of its pictures, .* no multiple of the latent's sides"):
        crossings._crossing("x", torch.zeros(1, 3), at, AT, "Some")


@pytest.mark.parametrize(
    ("shape", "at", "fold", "listed"),
    [
        (
            (2, 8, 2, 2),
            {"latent_height": (2, 8, 4, 2), "latent_width": (2, 8, 2, 6)},
            2,
            False,
        ),  # a T2I-Adapter's deeper features
        ((2, 4, 8), {"latent_height": (2, 8, 8), "latent_width": (2, 12, 8)}, 2, True),  # packed, as FLUX.1 has it
        ((2, 16, 3), {"latent_height": (2, 32, 3), "latent_width": (2, 48, 3)}, 1, True),
    ],
)
def test_cells_of_several_of_the_latent_s_cross_in_the_latent_s_sides(shape, at, fold, listed):
    batch = {"batch": (2 * shape[0], *shape[1:])}
    made = torch.arange(float(torch.Size(shape).numel())).reshape(shape)
    crossing = crossings._crossing("x", made, {**batch, **at}, AT, "Some")
    assert (crossing.fold, crossing.listed, crossing.rows) == (fold, listed, 2)
    assert crossing.shape[1:] == ("latent_height", "latent_width")
    carried = crossing.folded(made, 4)
    assert carried.shape == (1, 2, crossing.shape[0], 4, 4)
    assert torch.equal(crossing.unfolded(carried, torch.float32), made)


def test_a_pipeline_whose_pictures_are_one_prompt_s_is_followed_with_one():
    """FLUX.2 takes a list of pictures for one prompt, of which each is encoded alone."""
    made = MADE["flux2-klein"]()
    for name in ("transformer", "vae", "text_encoder"):
        getattr(made, name).to("meta")
    survey = surveyed(made, {}, "classifier_free", 64, 64, 2, shown=True)
    assert [leaf.name for leaf in survey.conditioning[0]] == ["prompt_embeds", "text_ids"]
    alone = Shapes(height=(64, 64, 64), width=(64, 64, 96), batch=(1, 1, 1))
    (crossing,) = crossings.conditions(survey, alone, 4).crossings
    assert crossing.name == "image_condition"

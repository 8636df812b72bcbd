"""Noise of no latent's shape that is added to what is made of pictures: an input, and in diffusers' own run what was fed."""

import pytest
import torch

from engines.errors import UnsupportedError
from exporter.families.tracing.following.origins import origins
from exporter.families.tracing.pictures.own_noise import NOISE, OwnNoise, beside, of_a_picture
from exporter.reference.record import record
from tests.exporter import equality
from tests.exporter.families.test_traced import RECIPE, family
from tools.coverage import beside as trials
from tools.coverage.models import BESIDE


def test_a_latent_s_noise_is_drawn_and_other_noise_is_what_is_given_in_order():
    given, seen = torch.rand(2, 2, 8), list[tuple[int, ...]]()
    draw = beside(torch.ones, given, seen)
    assert torch.equal(draw((2, 8)), given[:, 0])
    assert torch.equal(draw((2, 1, 8)), given[:, 1, None])
    assert draw((2, 4, 8, 8)).min() == 1
    assert (seen, origins(beside(torch.ones)((1, 8)))) == ([(2, 8), (2, 1, 8)], {NOISE})
    with pytest.raises(UnsupportedError, match=r"noise of \[2, 8\] is drawn behind that of a latent"):
        draw((2, 8))


def test_noise_of_one_shape_is_counted():
    assert of_a_picture([(1, 8), (1, 8)], "it") == (2, 8)
    assert of_a_picture([], "it") == ()
    with pytest.raises(UnsupportedError, match="it draws noises of several shapes for its pictures"):
        of_a_picture([(1, 8), (1, 9)], "it")


def test_diffusers_own_run_is_given_it_and_draws_the_rest_itself():
    given, seeded = torch.rand(2, 1, 8), {"generator": torch.Generator().manual_seed(0)}
    with OwnNoise(given):
        assert torch.equal(torch.randn((2, 8), **seeded), given[:, 0])
        assert torch.equal(torch.randn(2, 4, 8, 8, **seeded), torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)))
        assert not torch.equal(torch.randn(2, 8), given[:, 0]), "what no seed reaches is another matter"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unclip")
    BESIDE["stable-unclip-img2img"]().save_pretrained(folder / "model")
    return family(folder / "model")


def test_level_and_noise_are_of_the_pictures_side(made):
    assert made.inputs[NOISE].shape == ("batch", 1, 16)
    assert (made.inputs["noise_level"].maximum, made.inputs["noise_level"].default) == (999, 0)
    condition, unet = made.signature("condition"), made.signature("unet")
    assert [port.name for port in condition.inputs] == ["noise_level", NOISE, "image"]
    assert [(port.name, port.shape) for port in condition.outputs] == [("image_condition", ("batch", 2, 32))]
    assert unet.port("noise_level") is unet.port(NOISE) is None
    # Statistics that are no network's own are of the part that scales by them; the UNet is not.
    assert made.components("condition") == ("image_encoder", "image_normalizer")
    assert (made.notes, made.noise_order) == ([], [])


def test_every_part_answers_as_diffusers(made):
    recording = record(made, made.recipe)
    fed = [run.inputs for run in recording.runs]
    assert all(each[NOISE].std() > 0.1 for each in fed)
    assert len({int(each["noise_level"][0]) for each in fed}) > 1
    assert len(recording.runs[1].setting.prompts) == 2
    equality.answers(made, recording)


def test_a_start_from_a_picture_is_refused(made):
    text = RECIPE + "components: {vae_encoder: {}}"
    with pytest.raises(Exception, match="diffusers starts StableUnCLIPImg2ImgPipeline from no picture"):
        family(made.checkpoint.folders["unet"].parent, text=text)


@pytest.mark.long
def test_a_bundle_draws_what_diffusers_draws_of_a_seed_a_picture_and_a_level():
    found = trials.row("stable-unclip-img2img")
    assert (found["state"], found["guidance"]) == ("works", "classifier_free")

"""Pipelines that start from a picture, followed: what they make of it, where they begin, and that a bundle begins there too."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from engines.errors import RecipeError, UnsupportedError
from exporter.families.tracing import starts, surveying
from exporter.recipe.schema import Recipe
from exporter.reference.part_outputs import measure
from exporter.reference.record import record
from exporter.stages.plan import Plan
from tests.exporter import equality
from tests.exporter.families.test_traced import MODES, RECIPE, family
from tools.coverage import models

FROM_IMAGES = RECIPE + "components: {vae_encoder: {}}\n"


@pytest.fixture(scope="module")
def flux(model):
    return family(model("flux"), text=FROM_IMAGES.replace("steps: [2]", "steps: [4]"))


def test_what_a_pipeline_starts_from_is_read_off_it(flux):
    assert flux.roles["vae_encoder"] == "encoder"
    image, mask = flux.starts["image"], flux.starts["mask"]
    assert (image.kind.__name__, mask.kind.__name__) == ("FluxImg2ImgPipeline", "FluxInpaintPipeline")
    assert image.components == mask.components == ("vae",)
    assert image.drawn == mask.drawn == (None, 0, 1)
    assert (image.draws, mask.draws) == (2, 3)  # within a mask it encodes what is kept too, for which it has no use
    assert flux.partial_step == image.partial == "taken"
    signature = flux.signature("vae_encoder")
    assert [(port.name, port.shape) for port in signature.inputs] == [
        ("image", ("batch", "2*latent_height", "2*latent_width", 3)),
        ("noise", ("batch", 1, "latent_height", "latent_width")),
    ]
    assert [(port.name, port.shape) for port in signature.outputs] == [("latent", signature.inputs[1].shape)]


def test_the_encoder_s_latent_under_noise_is_what_diffusers_first_asks_about(flux):
    """Packed, scaled and moved; and each part answers as it does in the pipelines that start from a picture."""
    recording = record(flux, flux.recipe)
    run = next(run for run in recording.runs if run.setting.label == "from an image")
    sigma = run.times[0] / 1000
    assert len(run.times) == 3  # 0.6 of four steps, and the step in which that ends
    assert 0 < sigma < 1
    wanted = (1 - sigma) * run.source.latent + sigma * run.draws[1]
    np.testing.assert_allclose(run.model_inputs[0], wanted, atol=1e-5)
    assert len(recording.cases["vae_encoder"]) > 2
    for part in ("transformer", "vae_encoder", "vae_decoder"):
        for case in measure(flux.part(part, "fp32"), recording.cases[part]):
            for port, source in case.source.items():
                assert np.linalg.norm(case.passes[port] - source) / np.linalg.norm(source) < equality.ROUNDING, case.label


def test_where_times_depend_on_the_size_each_size_has_tables_that_start_from_an_image(model):
    text = FROM_IMAGES % (model("flux"), MODES["none"])
    made = Plan(Recipe.parse(text, "micro")).tables
    assert made.sized
    assert made.further["image"].keys() == {*made.samplers, *made.sized}
    assert not Plan(Recipe.parse(text.replace("components: {vae_encoder: {}}", ""), "micro")).tables.further


def test_a_model_that_is_saved_to_start_from_a_picture_has_an_encoder_unasked(model, tmp_path):
    for file in model("flux").iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "model_index.json").unlink()
    index = json.loads((model("flux") / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps(index | {"_class_name": "FluxInpaintPipeline"}))
    made = family(tmp_path)
    assert made.survey.name == "FluxPipeline"
    assert made.roles["vae_encoder"] == "encoder"


def test_a_controlnet_s_picture_and_the_one_to_start_from_are_two(model):
    made = family(model("stable-diffusion-controlnet"), text=FROM_IMAGES)
    assert list(made.inputs) == ["control_image"]
    assert made.starts["image"].shown == made.starts["mask"].shown == {"control_image": "control_image"}
    assert made.partial_step == "dropped"


def test_what_diffusers_starts_from_no_picture_has_no_encoder(model):
    with pytest.raises(
        RecipeError, match=r"components\.vae_encoder: .* none; diffusers starts PixArtSigmaPipeline from no picture"
    ):
        family(model("pixart-sigma"), text=FROM_IMAGES)


def test_one_of_two_that_cannot_be_followed_is_a_note(model):
    """diffusers fills masks with SD3 of 16 channels alone."""
    made = family(model("stable-diffusion-3"), text=FROM_IMAGES)
    assert list(made.starts) == ["image"]
    assert any(note.startswith("not held to diffusers: StableDiffusion3InpaintPipeline") for note in made.notes)


def surveyed(make, mode="none"):
    made = make()
    for network in made.components.values():
        if isinstance(network, torch.nn.Module):
            network.to("meta")
    return surveying.surveyed(made, {}, mode, 32, 32, 2)


def test_what_the_pipeline_s_own_methods_prepare_is_started_from_and_kept_without_noise(model):
    """DeepFloyd's resize and scale pictures themselves, encode them with no network, and leave clean what a mask keeps."""
    made = family(model("if"), text=FROM_IMAGES)
    image, mask = made.starts["image"], made.starts["mask"]
    assert (image.kind.__name__, mask.kind.__name__) == ("IFImg2ImgPipeline", "IFInpaintingPipeline")
    assert image.components == mask.components == ()
    assert (image.clean, mask.clean, made.driving.clean) == (False, True, True)
    recording = record(made, made.recipe)
    for part in ("vae_encoder", "vae_decoder"):
        for case in measure(made.part(part, "fp32"), recording.cases[part]):
            for port, source in case.source.items():
                assert np.linalg.norm(case.passes[port] - source) / np.linalg.norm(source) < equality.ROUNDING, case.label
    (run,) = [run for run in recording.runs if run.setting.masked]
    kept = ~run.source.anew[0] if run.source.anew.ndim == 3 else ~run.source.anew
    for seen in (*run.model_inputs, run.latent):
        np.testing.assert_allclose(seen[0][:, kept], run.source.latent[0][:, kept], atol=1e-6)


def test_a_picture_whose_noise_the_mask_keeps_is_not_clean(flux):
    assert not flux.starts["mask"].clean
    assert not flux.driving.clean


def test_what_is_prepared_in_no_known_way_is_refused(monkeypatch):
    monkeypatch.setattr("exporter.families.tracing.pictures.own_preparation._METHODS", {})
    with pytest.raises(UnsupportedError, match="IFImg2ImgPipeline"):
        starts.starts(surveyed(models.MADE["if"], "classifier_free"))


def test_a_picture_of_another_size_than_the_pipeline_makes_is_refused(model):
    with pytest.raises(UnsupportedError, match="IFImg2ImgPipeline makes 32 x 32 px of a picture of 64 x 64"):
        family(model("if"), text=FROM_IMAGES.replace("[32, 32, 48]", "[64, 64, 64]").replace("[32, 32, 32]", "[64, 64, 64]"))


def test_a_pipeline_of_two_stages_starts_with_its_second_and_has_its_sides_swapped(model):
    """diffusers hands Kandinsky 2.2's image processor width and height in the wrong order."""
    text = FROM_IMAGES.replace("{source: %s}", "{source: %s, call: {prior_num_inference_steps: 3}}")
    made = family(model("kandinsky22"), text=text)
    assert list(made.starts) == ["image"]
    start = made.starts["image"]
    assert (start.kind.__name__, start.components) == ("KandinskyV22Img2ImgCombinedPipeline", ("movq",))
    assert (start.drawn, start.turned, start.partial) == ((None, None, 0), True, "dropped")
    assert not any(start.turned for start in family(model("if"), text=FROM_IMAGES).starts.values())
    recording = record(made, made.recipe)
    for case in measure(made.part("vae_encoder", "fp32"), recording.cases["vae_encoder"]):
        for port, source in case.source.items():
            assert np.linalg.norm(case.passes[port] - source) / np.linalg.norm(source) < equality.ROUNDING, case.label


def test_steps_that_are_counted_in_no_known_way_are_refused(monkeypatch):
    survey = surveyed(models.MADE["flux-guided"], "embedded")

    def get_timesteps(self, steps, strength, device):  # noqa: ARG001
        return self.scheduler.timesteps[steps - 1 :], 1

    monkeypatch.setattr("diffusers.FluxImg2ImgPipeline.get_timesteps", get_timesteps)
    monkeypatch.setattr("diffusers.FluxInpaintPipeline.get_timesteps", get_timesteps)
    with pytest.raises(
        UnsupportedError, match=r"FluxImg2ImgPipeline leaves steps out in no way .*\(9 of 10 at 0.55, 6 of 7 at 0.4\)"
    ):
        starts.starts(survey)


def test_times_of_its_own_are_refused(monkeypatch):
    survey = surveyed(models.MADE["flux-guided"], "embedded")
    for name in ("img2img", "inpaint"):
        monkeypatch.setattr(f"diffusers.pipelines.flux.pipeline_flux_{name}.calculate_shift", lambda *_: 7.0)
    with pytest.raises(UnsupportedError, match="FluxImg2ImgPipeline has other times than FluxPipeline"):
        starts.starts(survey)


def test_a_condition_s_own_noise_comes_before_the_encoder_s_and_one_that_changes_nothing_is_left_out():
    """FLUX.1's control is encoded; within a mask diffusers first encodes what is kept, for which it has no use."""
    survey = surveyed(models.MADE["flux-control"], "embedded")
    found, notes = starts.starts(survey)
    assert (found["image"].drawn, found["image"].draws) == ((0, 1, 2), 3)
    assert (found["mask"].drawn, found["mask"].draws) == ((1, 2, 3), 4)
    assert (found["image"].order, found["mask"].order) == ((0, 1, 2), (1, 2, 3))
    assert notes == []


def test_a_noise_that_changes_nothing_and_comes_last_is_a_note(monkeypatch):
    found = starts._Followed.start

    def later(self):
        return dataclasses.replace(found(self), draws=9)

    monkeypatch.setattr(starts._Followed, "start", later)
    _, notes = starts.starts(surveyed(models.MADE["flux-guided"], "embedded"))
    assert notes[0] == "seeds: FluxImg2ImgPipeline at last draws a noise that changes nothing, so a seed is not diffusers' there"

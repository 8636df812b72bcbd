"""Pipelines that draw from no text alone: followed as if they began with noise, and started from a picture as diffusers does."""

from types import SimpleNamespace

import diffusers
import pytest
import torch
from PIL import Image

from engines.errors import UnsupportedError
from exporter.families.tracing.following import own_start
from exporter.reference.part_outputs import measure
from exporter.reference.record import record
from tests.exporter import equality
from tests.exporter.families.test_traced import family
from tests.exporter.families.tracing.test_starts import FROM_IMAGES
from tools.coverage.models import BESIDE


@pytest.mark.parametrize(
    ("kind", "alone"),
    [
        ("StableDiffusionDepth2ImgPipeline", True),
        ("StableDiffusionXLImg2ImgPipeline", True),
        ("StableDiffusionInpaintPipeline", False),  # which fills a mask
        ("StableDiffusionUpscalePipeline", False),  # whose picture is a condition
        ("FluxPipeline", False),
    ],
)
def test_who_starts_from_a_picture_alone(kind, alone):
    assert own_start.alone(getattr(diffusers, kind)) == alone


def test_a_blank_is_a_latent_of_its_size_and_no_noise_is_added_to_it():
    pipeline = BESIDE["stable-diffusion-depth2img"]()
    blank = own_start.blank(pipeline, 2, 32, 48)["image"]
    assert isinstance(blank, Image.Image)
    assert blank.size == (48, 32)
    processor = own_start.processors(pipeline)["image_processor"]
    assert processor.preprocess(blank).shape == (2, 4, 16, 24)
    assert processor.preprocess(Image.new("RGB", (48, 32))).shape == (1, 3, 32, 48)
    noise, scheduler = torch.ones(1, 4, 2, 2), pipeline.scheduler
    with own_start.from_noise(pipeline):
        assert torch.equal(scheduler.add_noise(7 * noise, noise, torch.tensor([10])), noise * scheduler.init_noise_sigma)
    assert not torch.equal(scheduler.add_noise(7 * noise, noise, torch.tensor([10])), noise)
    text = diffusers.StableDiffusionPipeline
    assert own_start.blank(text, 1, 8, 8) == own_start.processors(text) == {}


@pytest.mark.parametrize("phase", ["before", "denoiser"])
def test_a_picture_in_which_a_mask_is_filled_is_noise_before_the_first_step_and_never_behind_one(phase):
    fill, noise = object.__new__(diffusers.FluxFillPipeline), torch.ones(1, 4, 2, 2)
    fill.__dict__["scheduler"] = diffusers.FlowMatchEulerDiscreteScheduler()
    play = SimpleNamespace(pipeline=fill, phase=phase, fills=False)
    begin = own_start.methods(play)["scale_noise"]
    if phase == "before":
        assert begin(None, 7 * noise, None, noise) is noise
        assert play.fills
    else:
        with pytest.raises(UnsupportedError, match="FluxFillPipeline puts back what its mask keeps after every step"):
            begin(None, 7 * noise, None, noise)
    text = SimpleNamespace(pipeline=object.__new__(diffusers.FluxPipeline), phase=phase, fills=False)
    assert own_start.methods(text) == {}


def test_how_much_of_a_picture_is_left_under_noise_is_the_scheduler_s():
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    assert own_start.left_under_noise(scheduler, 4, {}) == 0
    assert own_start.left_under_noise(scheduler, 2, {"sigmas": [0.75, 0.5]}) == 0.25
    assert len(scheduler.timesteps) == 1000  # which nobody has told anything


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("stable-diffusion-depth2img", {"depth_map": (3, 1)}),
        pytest.param("stable-diffusion-xl-refiner", {}, marks=pytest.mark.long),
    ],
)
def test_every_part_answers_as_diffusers_from_noise_and_from_a_picture(model, name, inputs):
    made = family(model(name), text=FROM_IMAGES.replace("steps: [2]", "steps: [4]"))
    assert {name: (len(entry.shape) - 1, entry.shape[-1]) for name, entry in made.inputs.items()} == inputs
    assert list(made.starts) == ["image"]
    assert made.partial_step == "dropped"
    recording = record(made, made.recipe)
    begun = [run for run in recording.runs if run.setting.strength]
    assert [(run.setting.strength, len(run.times)) for run in begun] == [(0.6, 2)]
    for part in made.roles:
        for case in measure(made.part(part, "fp32"), recording.cases[part]):
            for port, wanted in case.source.items():
                assert wanted.std() > 1e-4, "a dead network proves nothing"
                assert abs(case.passes[port] - wanted).max() / abs(wanted).max() < 10 * equality.ROUNDING, case.label


def test_every_part_of_what_fills_a_mask_answers_as_diffusers(model):
    """FLUX.1 Fill encodes its picture, draws its noise, and encodes what the mask leaves of it: its first noise is in vain."""
    made = family(model("flux-fill"), "embedded")
    assert {name: entry.kind for name, entry in made.inputs.items()} == {"image": "image", "mask": "mask"}
    assert (list(made.noise_order), made.starts) == ([2, 1], {})
    assert any(note.startswith("left out: strengths below 1 of FluxFillPipeline") for note in made.notes)
    recording = record(made, made.recipe)
    for part in made.roles:
        for case in measure(made.part(part, "fp32"), recording.cases[part]):
            for port, wanted in case.source.items():
                assert wanted.std() > 1e-4, "a dead network proves nothing"
                assert abs(case.passes[port] - wanted).max() / abs(wanted).max() < 10 * equality.ROUNDING, case.label

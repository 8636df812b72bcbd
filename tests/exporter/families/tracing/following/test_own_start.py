"""Pipelines that draw from no text alone: followed as if they began with noise, and started from a picture as diffusers does."""

import diffusers
import pytest
import torch
from PIL import Image

from exporter.families.tracing.following import own_start
from exporter.reference.part_outputs import measure
from exporter.reference.record import record
from tests.exporter import equality
from tests.exporter.families.test_traced import family
from tests.exporter.families.tracing.test_starts import FROM_IMAGES
from tools.coverage import beside


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
    pipeline = beside.MADE["stable-diffusion-depth2img"]()
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

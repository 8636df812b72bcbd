"""Which pipelines of diffusers play the same networks from text, from a picture, and within a mask."""

import diffusers
import pytest

from exporter.families.tracing.pipelines import siblings
from tools.coverage.models import MADE

PACKED = {"transformer": {"in_channels": 64}, "vae": {"latent_channels": 16}}


@pytest.mark.parametrize(
    ("kind", "image", "mask"),
    [
        ("FluxPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline"),
        ("StableDiffusionPAGPipeline", "StableDiffusionPAGImg2ImgPipeline", "StableDiffusionPAGInpaintPipeline"),
        ("StableDiffusion3PAGPipeline", "StableDiffusion3PAGImg2ImgPipeline", None),
        ("StableDiffusionControlNetPAGPipeline", None, "StableDiffusionControlNetPAGInpaintPipeline"),
        ("PixArtSigmaPipeline", None, None),
        ("IFPipeline", "IFImg2ImgPipeline", "IFInpaintingPipeline"),
        ("KandinskyV22CombinedPipeline", "KandinskyV22Img2ImgCombinedPipeline", None),  # whose mask has no strength
        ("FluxKontextPipeline", None, None),  # takes a picture, and no strength
        ("StableDiffusionDepth2ImgPipeline", "StableDiffusionDepth2ImgPipeline", None),  # which draws from no text alone
    ],
)
def test_those_that_start_from_a_picture_by_a_strength_are_diffusers_own_lists(kind, image, mask):
    found = siblings.starting(getattr(diffusers, kind))
    assert {given: own.__name__ for given, own in found.items()} == {
        given: name for given, name in (("image", image), ("mask", mask)) if name
    }


@pytest.mark.parametrize(
    ("kind", "configs", "other"),
    [
        ("StableDiffusion3Img2ImgPipeline", {}, "StableDiffusion3Pipeline"),
        ("FluxInpaintPipeline", PACKED, "FluxPipeline"),
        ("StableDiffusionPAGInpaintPipeline", {"unet": {"in_channels": 4}, "vae": {}}, "StableDiffusionPAGPipeline"),
        # The network itself takes mask and picture.
        (
            "StableDiffusionInpaintPipeline",
            {"unet": {"in_channels": 9}, "vae": {"latent_channels": 4}},
            "StableDiffusionInpaintPipeline",
        ),
        ("FluxPipeline", PACKED, "FluxPipeline"),
        ("StableDiffusionXLImg2ImgPipeline", {"unet": {}, "vae": {}}, "StableDiffusionXLPipeline"),
        (
            "StableDiffusionXLImg2ImgPipeline",
            {"unet": {}, "vae": {}, "model_index": {"requires_aesthetics_score": True}},
            "StableDiffusionXLImg2ImgPipeline",
        ),
        ("FluxKontextPipeline", PACKED, "FluxKontextPipeline"),
    ],
)
def test_a_model_that_is_saved_to_start_from_a_picture_is_one_that_draws_from_text(kind, configs, other):
    assert siblings.from_text(getattr(diffusers, kind), configs) is getattr(diffusers, other)


def test_a_control_picture_keeps_a_name_of_its_own_beside_the_picture_to_start_from():
    kind, sibling = diffusers.StableDiffusionControlNetPipeline, diffusers.StableDiffusionControlNetImg2ImgPipeline
    assert siblings.conditions(kind, sibling) == {"image": "control_image"}
    assert siblings.words(kind) == {"control_image": "image"}
    assert siblings.words(diffusers.FluxControlPipeline) == {"control_image": "control_image"}
    assert siblings.words(diffusers.FluxPipeline) == {}
    assert siblings.words(diffusers.PixArtSigmaPipeline) is None


def test_another_pipeline_has_the_same_components_and_scheduler():
    made = MADE["stable-diffusion-pag"]()
    config = dict(made.scheduler.config)
    other = siblings.over(diffusers.StableDiffusionPAGInpaintPipeline, made)
    assert {name: other.components[name] for name in made.components} == made.components
    assert dict(made.scheduler.config) == config
    assert other.config["requires_safety_checker"] is False

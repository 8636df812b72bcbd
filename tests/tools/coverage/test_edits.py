"""Trials of what starts from a picture: a row for each task of a name."""

import pytest

from tools.coverage import edits
from tools.coverage.models import MADE


def test_a_mask_is_filled_by_the_model_of_which_diffusers_fills_masks():
    made = MADE["stable-diffusion-3"](), edits.OWN["stable-diffusion-3", "inpainting"]()
    assert [each.transformer.config.in_channels for each in made] == [4, 16]
    assert [each.vae.config.shift_factor > 0 for each in made] == [True, False]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_bundle_starts_from_pictures_and_fills_masks_as_diffusers_does():
    """Packed latents, times by the size, and strengths that end within a step."""
    found = edits.rows("flux")
    assert {task: row["state"] for task, row in found.items()} == {"image-to-image": "works", "inpainting": "works"}

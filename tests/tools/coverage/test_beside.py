"""Trials of pipelines that stand in none of diffusers' lists."""

import pytest

from tools.coverage import beside


@pytest.mark.long
@pytest.mark.parametrize("name", ["dit", "ddpm", "score-sde-ve", "stable-diffusion-latent-upscaler", "bria"])
def test_what_is_drawn_is_what_diffusers_draws(name):
    found = beside.row(name)
    assert (found["state"], found["psnr"] > 90) == ("works", True)
    assert found["fp16"] > 30


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_refiner_goes_on_where_its_base_has_stopped():
    found = beside.row("stable-diffusion-xl-base-and-refiner")
    assert (found["state"], found["psnr"] > 90) == ("works", True)

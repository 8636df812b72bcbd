"""Micro models that read a picture as a prompt, and their adapters."""

import pytest

from tools.coverage import beside, prompted


@pytest.mark.parametrize("name", prompted.ADAPTED)
def test_diffusers_itself_takes_the_adapter(name, tmp_path):
    source = prompted.MADE[name]()
    fields = beside._adapted(name, source, tmp_path)
    assert fields["ip_adapter"]["weight_name"] == "ip-adapter.safetensors"
    (layer,) = source.unet.encoder_hid_proj.image_projection_layers
    assert ("Plus" in type(layer).__name__) == name.endswith("plus")


@pytest.mark.long
@pytest.mark.parametrize("name", ["ip-adapter", "stable-diffusion-image-variation", "t2i-adapter-xl"])
def test_a_picture_as_a_prompt_draws_what_diffusers_draws(name):
    found = beside.row(name)
    assert (found["state"], found["psnr"] > 90) == ("works", True)

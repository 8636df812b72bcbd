"""What a pipeline's own code makes of pictures for its steps, held to diffusers' own networks."""

import numpy as np
import torch

from exporter.families.tracing.condition_values import condition_values
from tests.exporter.families.test_traced import family


def test_a_controlnet_s_hint_is_embedded_as_its_own_layer_does(model):
    made = family(model("stable-diffusion-controlnet"))
    pipeline = made.pipeline(loaded=("controlnet",))
    pixels = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    noise = np.zeros((1, *made.survey.latent), np.float32)
    found = condition_values(made, pipeline, {"image": pixels}, noise)
    assert set(found) == {"noise", "image", "image_condition"}
    np.testing.assert_allclose(found["image"], pixels / np.float32(255), atol=1e-6)
    with torch.no_grad():
        hint = pipeline.controlnet.controlnet_cond_embedding(torch.from_numpy(found["image"]).permute(0, 3, 1, 2)).numpy()
    assert found["image_condition"].shape[:2] == (1, 2)  # of both branches
    for branch in range(2):
        np.testing.assert_allclose(found["image_condition"][:, branch], hint, atol=1e-6)


def test_a_pipeline_that_takes_no_pictures_makes_nothing_of_them(model):
    made = family(model("pixart-sigma"))
    assert condition_values(made, made.pipeline(loaded=()), {}, np.zeros((1, *made.survey.latent), np.float32)) == {}

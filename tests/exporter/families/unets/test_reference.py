"""The source as diffusers runs it says the same as the parts that are made of it."""

import numpy as np
import pytest
import torch

from exporter.families.sdxl import Sdxl
from tests.exporter import equality

PROMPTS, NEGATIVE = ("a red circle", "the blue square"), "blurry"


@pytest.fixture(scope="module")
def made(tiny_sdxl):
    family = equality.family(Sdxl, tiny_sdxl, components=("vae_encoder",))
    return family, family.reference()


def run(family, name, *arrays):
    with torch.no_grad():
        found = family.part(name, "fp32").module(*(torch.from_numpy(array) for array in arrays))
    return [each.numpy() for each in (found if isinstance(found, tuple) else (found,))]


def test_ids_and_conditioning_are_those_of_the_text_parts(made):
    family, reference = made
    ids, wanted = reference.tokenize(PROMPTS, NEGATIVE), reference.encode(PROMPTS, NEGATIVE)
    assert {name: array.shape for name, array in ids.items()} == {"tokenizer_ids": (2, 2, 77), "tokenizer_2_ids": (2, 2, 77)}
    assert (ids["tokenizer_ids"][0, 0] == ids["tokenizer_ids"][1, 0]).all(), "the negative prompt comes first"
    found = {}
    for tower, name in family.towers.items():
        outputs = run(family, tower, ids[f"{name}_ids"])
        found |= dict(zip([port.name for port in family.signature(tower).outputs], outputs, strict=True))
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-4, err_msg=name)


@torch.no_grad()
def test_pictures_and_latents_are_those_of_the_vae_s_parts(made):
    family, reference = made
    random = np.random.default_rng(0)
    image = random.random((1, 32, 48, 3), np.float32)
    noise = random.standard_normal((1, 4, 8, 12)).astype(np.float32)
    latent = reference.encode_image(image, noise)
    np.testing.assert_allclose(run(family, "vae_encoder", image, noise)[0], latent, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(run(family, "vae_decoder", latent)[0], reference.decode(latent), rtol=1e-4, atol=1e-4)


def test_parts_have_their_modules_and_what_the_pipeline_calls(made):
    family, reference = made
    pipeline = reference.pipeline
    assert reference.components.keys() == reference.calls.keys() == family.roles.keys()
    assert reference.components["vae_decoder"] is pipeline.vae.decoder
    assert reference.calls["vae_encoder"] == (pipeline.vae, "encode")
    assert reference.calls["text_encoder_2"] == (pipeline.text_encoder_2, "forward")


def test_a_run_takes_its_conditioning_apart(made):
    _, reference = made
    asked = []
    conditioning = reference.encode(PROMPTS, NEGATIVE)
    options = {"pipeline": lambda **given: asked.append(given), "num_inference_steps": 3}
    for scale in (3.0, 1.0, None):
        reference.call(conditioning, scale, **options)
    states = np.concatenate([conditioning["prompt_embeds"], conditioning["prompt_embeds_2"]], axis=-1)
    np.testing.assert_array_equal(asked[0]["prompt_embeds"].numpy(), states[:, 1])
    np.testing.assert_array_equal(asked[0]["negative_prompt_embeds"].numpy(), states[:, 0])
    np.testing.assert_array_equal(asked[0]["pooled_prompt_embeds"].numpy(), conditioning["pooled_prompt_embeds"][:, 1])
    assert [given["guidance_scale"] for given in asked] == [3.0, 1.0, 1.0]
    assert "negative_prompt_embeds" not in asked[1]
    assert asked[0]["num_inference_steps"] == 3

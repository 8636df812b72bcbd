"""The source of a traced pipeline, asked as recordings ask it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from engines.errors import UnsupportedError
from engines.tokenizer import TextTokenizer
from tests.exporter.families.test_traced import RECIPE, family
from tools.coverage.models import MADE

PROMPTS = ("A red circle", "the blue square")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder: Path = tmp_path_factory.mktemp("model")
    MADE["pixart-sigma"]().save_pretrained(folder)
    found = family(folder)
    return found, found.reference()


def test_ids_are_those_of_the_text_as_the_pipeline_has_it_read(made):
    found, reference = made
    tokens = reference.tokenize(PROMPTS, "Blurry")
    assert {name: array.shape for name, array in tokens.items()} == {"tokenizer_ids": (2, 2, 300), "tokenizer_mask": (2, 2, 300)}
    own = found.tokenizer("tokenizer")("a red circle", padding="max_length", max_length=300)
    np.testing.assert_array_equal(tokens["tokenizer_ids"][0, 1], own.input_ids)
    np.testing.assert_array_equal(tokens["tokenizer_mask"][0, 1], own.attention_mask)
    assert (tokens["tokenizer_ids"][0, 0] == tokens["tokenizer_ids"][1, 0]).all(), "the negative prompt comes first"


def test_a_call_on_what_was_encoded_is_a_call_on_the_prompts(made):
    _, reference = made
    conditioning = reference.encode(PROMPTS, "Blurry")
    noise = np.random.default_rng(0).standard_normal((2, 4, 16, 16)).astype(np.float32)
    asked = {"height": 32, "width": 32, "num_inference_steps": 2, "output_type": "np", "latents": torch.from_numpy(noise)}
    got = reference.call(conditioning, 3.0, **asked).images
    wanted = reference.pipeline(
        list(PROMPTS), negative_prompt=["Blurry"] * 2, guidance_scale=3.0, use_resolution_binning=False, **asked
    ).images
    np.testing.assert_allclose(got, wanted, atol=1e-4)
    latent = noise[:1]
    assert reference.decode(latent).shape == (1, 32, 32, 3)


@pytest.mark.parametrize(("name", "lengths"), [("sana", (300, 1355)), ("ovis", (284,))])
def test_the_bundle_s_tokenizers_make_the_pipeline_s_ids(tmp_path, name, lengths):
    """Sana has an instruction before the prompt alone, so that its one tokenizer reads in two ways; Ovis a chat's template."""
    MADE[name]().save_pretrained(tmp_path / "model")
    found = family(tmp_path / "model")
    wanted, made = found.reference().tokenize(PROMPTS, "Blurry"), found.tokenizers()
    assert tuple(sorted(entry.length for entry, _ in made.values())) == lengths
    for tokenizer, (entry, text) in made.items():
        (tmp_path / f"{tokenizer}.json").write_text(text, encoding="utf-8")
        own = TextTokenizer.of(tmp_path / f"{tokenizer}.json", entry)
        for index, prompt in enumerate(PROMPTS):
            tokens = own.encode(["Blurry", prompt])
            np.testing.assert_array_equal(tokens.ids, wanted[entry.feeds][index])
            np.testing.assert_array_equal(tokens.mask, wanted[entry.mask][index])


def test_parts_have_their_networks_and_calls(made):
    found, reference = made
    assert reference.components.keys() == reference.calls.keys() == found.roles.keys()
    assert reference.calls["vae_decoder"] == (reference.pipeline.vae, "decode")
    assert reference.calls["text_encoder"] == (reference.pipeline, "encode_prompt")
    with pytest.raises(UnsupportedError, match="without an encoder of images"):
        reference.from_image(np.zeros((32, 32, 3), np.uint8), None, 0.6, {})
    with pytest.raises(UnsupportedError, match="without an encoder of images"):
        reference.encode_image(np.zeros((1, 32, 32, 3), np.float32), np.zeros((1, 4, 16, 16), np.float32))


def test_it_is_called_with_the_recipe_s_arguments(tmp_path):
    MADE["stable-diffusion-xl-pag"]().save_pretrained(tmp_path)
    made = family(tmp_path, text=RECIPE.replace("{source: %s}", "{source: %s, call: {crops_coords_top_left: [48, 64]}}"))
    reference, (noise,) = made.reference(), np.random.default_rng(0).standard_normal((1, 1, 4, 16, 16)).astype(np.float32)
    asked = {"height": 32, "width": 32, "num_inference_steps": 2, "output_type": "np", "latents": torch.from_numpy(noise)}
    got = reference.call(reference.encode(["a cat"], "grey"), 3.0, **asked).images
    wanted, plain = (
        reference.pipeline("a cat", negative_prompt="grey", guidance_scale=3.0, **asked, **own).images
        for own in ({"crops_coords_top_left": (48, 64)}, {})
    )
    np.testing.assert_allclose(got, wanted, atol=1e-4)
    assert np.abs(got - plain).max() > 1e-2

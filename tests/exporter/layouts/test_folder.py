"""What lies beside the graphs is what diffusers and transformers read; tests/tools/peers/test_layouts.py has older versions."""

import json

import diffusers
import pytest
from transformers import AutoTokenizer

from exporter.families import claim
from exporter.layouts import folder
from exporter.models.resolve import resolve
from exporter.recipe.schema import Recipe
from tests.exporter.layouts.test_plain import RECIPE


@pytest.fixture
def written(tiny_sdxl, tmp_path):
    """The pipeline, and the folder that it is written to."""
    text = RECIPE.replace("sampler: {", "sampler: {scheduler: EulerDiscreteScheduler, config: {timestep_spacing: trailing}, ")
    recipe = Recipe.parse(text % tiny_sdxl, "plain", tiny_sdxl)
    pipeline = claim(resolve(recipe.model, tiny_sdxl), recipe).reference().pipeline
    folder.write(pipeline, tmp_path)
    return pipeline, tmp_path


def test_the_index_names_the_sampler_of_the_recipe(written):
    index = json.loads((written[1] / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionXLPipeline"
    assert index["scheduler"] == ["diffusers", "EulerDiscreteScheduler"]
    assert index["vae"] == ["diffusers", "AutoencoderKL"]
    scheduler = diffusers.EulerDiscreteScheduler.from_pretrained(written[1] / "scheduler")
    assert scheduler.config.timestep_spacing == "trailing"


def test_every_graph_gets_its_config(written):
    pipeline, place = written
    for name, key, value in (
        ("unet", "in_channels", 4),
        ("text_encoder", "num_hidden_layers", 3),
        ("text_encoder_2", "projection_dim", 24),
        ("vae_decoder", "scaling_factor", pipeline.vae.config.scaling_factor),
        ("vae_encoder", "scaling_factor", pipeline.vae.config.scaling_factor),
    ):
        assert json.loads((place / name / "config.json").read_text())[key] == value


@pytest.mark.parametrize("name", folder.TOKENIZERS)
def test_tokenizers_give_the_same_ids_in_either_form(written, name):
    pipeline, place = written
    wanted = getattr(pipeline, name)("a red circle on the square").input_ids
    assert AutoTokenizer.from_pretrained(place / name)("a red circle on the square").input_ids == wanted
    vocabulary = json.loads((place / name / "vocab.json").read_text())
    assert vocabulary == getattr(pipeline, name).get_vocab()
    first, *merges = (place / name / "merges.txt").read_text().splitlines()
    assert first == "#version: 0.2"
    assert all(len(merge.split(" ")) == 2 for merge in merges)

"""What a recipe says of an IP-Adapter, by diffusers' own words."""

import inspect

import pytest
from diffusers import StableDiffusionPipeline

from engines.errors import RecipeError
from exporter.recipe.ip_adapter import IpAdapterOptions
from exporter.recipe.schema import Recipe

_TEXT = """
model: {source: somewhere, ip_adapter: %s}
sampler: {steps: [2]}
shapes: {height: [64, 64, 64], width: [64, 64, 64]}
"""


def test_its_words_are_those_of_load_ip_adapter():
    own = inspect.signature(StableDiffusionPipeline.load_ip_adapter).parameters
    words = {*IpAdapterOptions.model_fields} - {"source", "revision"}
    assert words <= own.keys()
    assert IpAdapterOptions(source="x").image_encoder_folder == own["image_encoder_folder"].default


def test_a_recipe_reads_it_and_names_what_is_wrong():
    recipe = Recipe.parse(_TEXT % "{source: h94/IP-Adapter, subfolder: models}", "r")
    assert recipe.model.ip_adapter == IpAdapterOptions(source="h94/IP-Adapter", subfolder="models")
    with pytest.raises(RecipeError, match=r"r\.yaml:2.*weight_names.*did you mean 'weight_name'"):
        Recipe.parse(_TEXT % "{source: x, weight_names: y}", "r")

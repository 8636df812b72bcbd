"""Regions: the config that is built, options that are none, a network that is no UNet. What it draws: test_merge_tokens.py."""

import pytest

from engines.errors import RecipeError, UnsupportedError
from exporter.passes.regional_attention import RegionalAttention
from exporter.recipe.schema import Recipe
from tests.exporter import models

REST = "model: {source: demo}\nsampler: {steps: [4]}\nshapes: {height: [64, 64, 64], width: [64, 64, 64]}\n"


def test_it_says_what_a_token_sees():
    found = RegionalAttention(regions=2, side=4).config(models.unet().config)
    assert found["grouped_attention"] == {"merge": 4, "regions": 2, "levels": 1}
    assert RegionalAttention().summary == "regional_attention: 2 x 2 regions, squares of 4 x 4"
    assert RegionalAttention.kind == "network"


def test_one_region_is_none():
    with pytest.raises(RecipeError, match=r"regional_attention.regions: must be at least 2, not 1"):
        Recipe.parse(f"{REST}components: {{unet: {{passes: [regional_attention: {{regions: 1}}]}}}}\n", "r")


def test_another_class_is_refused_by_name():
    with pytest.raises(UnsupportedError, match=r"regional_attention knows UNet2DConditionModel alone, and this network is Flux"):
        RegionalAttention().config({"_class_name": "FluxTransformer2DModel"})

"""What is scored is what the recipe and the folders say."""

import json

import click
import numpy as np
import pytest
from PIL import Image

from exporter import build
from exporter.recipe.schema import Recipe
from exporter.stages.store import Store
from tests.exporter import models
from tools.demo.pictures import from_diffusers, from_recipe

RECIPE = """
model: {source: SOURCE}
sampler: {scheduler: DDIMScheduler, steps: [3, 2], guidance: {mode: classifier_free, scale: 3.0}}
shapes: {height: [32, 32, 32], width: [32, 32, 32], batch: [1, 1, 2]}
components: {unet: {passes: [prune: {blocks: {mid_block: null}}]}}
"""


@pytest.fixture(scope="module")
def tiny_sdxl(tmp_path_factory):
    return models.save_sdxl(tmp_path_factory.mktemp("tiny_sdxl"))


@pytest.fixture
def recipe(tiny_sdxl, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "cut.yaml"
    file.write_text(RECIPE.replace("SOURCE", str(tiny_sdxl)))
    return file


def drawn(opened, seed=0):
    with opened as source:
        return source.draw(["a red circle", "the blue square"], seed), source.facts


def test_a_recipe_draws_with_the_network_that_its_pass_makes_and_its_own_sampler(recipe, tiny_sdxl):
    pictures, facts = drawn(from_recipe(recipe))
    assert pictures.shape == (2, 32, 32, 3)
    assert pictures.dtype == np.uint8
    assert (facts["steps"], facts["guidance"], facts["scheduler"]) == (3, 3.0, "DDIMScheduler")
    whole, plain = drawn(from_recipe(recipe, ["components={}"]))
    assert facts["parameters"]["unet"] < plain["parameters"]["unet"]
    assert not np.array_equal(pictures, whole)
    fewer, said = drawn(from_recipe(recipe, ["components={}"], 2, 1.0))
    assert (said["steps"], said["guidance"]) == (2, 1.0)
    assert not np.array_equal(fewer, whole)
    # A recipe without passes is the pipeline itself, which draws pictures of 64 pixels.
    own = [*(f"shapes.{side}=[64, 64, 64]" for side in ("height", "width")), "components={}", "sampler.scheduler=null"]
    assert np.array_equal(drawn(from_recipe(recipe, own))[0], drawn(from_diffusers(tiny_sdxl, 3, 3.0))[0])


def test_the_picture_of_a_seed_depends_on_nothing_else(recipe):
    with from_recipe(recipe) as source:
        both = source.draw(["a red circle"] * 2, 5)
        alone = source.draw(["a red circle"], 6)
    assert np.abs(both[1].astype(int) - alone[0]).max() <= 1


def test_networks_may_be_put_in_their_place(tiny_sdxl, recipe, tmp_path):
    models.tiny_vae().save_pretrained(tmp_path / "vae")
    models.unet_xl(layers_per_block=2).save_pretrained(tmp_path / "unet")
    before, plain = drawn(from_diffusers(tiny_sdxl, 2))
    for name in ("unet", "vae"):
        changed, facts = drawn(from_diffusers(tiny_sdxl, 2, **{name: tmp_path / name}))
        assert facts[name] == str(tmp_path / name)
        assert facts["parameters"] != plain["parameters"]
        assert changed.shape == before.shape
        assert not np.array_equal(changed, before)
    # In a recipe it stands for what the passes made.
    named, _ = drawn(from_recipe(recipe, unet=tmp_path / "unet"))
    assert np.array_equal(named, drawn(from_recipe(recipe, ["components={}"], unet=tmp_path / "unet"))[0])
    assert not np.array_equal(named, drawn(from_recipe(recipe))[0])


def test_a_training_is_not_started_by_a_score(recipe, tmp_path):
    passes = [{"prune": {"blocks": {"mid_block": None}}}, {"distill": {"data": str(tmp_path / "data"), "steps": 1, "batch": 1}}]
    (tmp_path / "data").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "data" / "a.png")
    (tmp_path / "data" / "a.txt").write_text("a red circle")
    assignment = f"components.unet.passes={json.dumps(passes)}"
    with (
        pytest.raises(click.ClickException, match=r"unet, distill: not trained yet.*t2iexport distill cut.yaml"),
        from_recipe(recipe, [assignment]),
    ):
        pass
    build.distill(Recipe.load(recipe, [assignment]), Store(), lambda *_, **__: None)
    taught, _ = drawn(from_recipe(recipe, [assignment]))
    assert not np.array_equal(taught, drawn(from_recipe(recipe))[0])

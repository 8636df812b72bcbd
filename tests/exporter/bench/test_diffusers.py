"""Where the source of a bundle is looked for."""

from pathlib import Path

import pytest

from engines.bundle import Bundle
from exporter.bench.diffusers import source
from tests.engines import small

ROOT = Path(__file__).parents[3]


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """A bundle of the recipe `demo` where the command line puts it, and nothing else."""
    monkeypatch.chdir(tmp_path)
    made = small.make(tmp_path / "bundles" / "demo")
    text = (ROOT / "recipes" / "demo.yaml").read_text()
    return Bundle(made.folder, made.manifest.model_copy(update={"recipe": text, "name": "demo"}))


def test_a_source_that_comes_with_the_package_is_found_and_the_bundle_of_its_name_is_not_taken_for_it(demo):
    recipe, family = source(demo)
    assert recipe.root == ROOT / "recipes"
    assert family.checkpoint.configs["unet"]["_class_name"] == "UNet2DConditionModel"


def test_a_source_in_the_folder_recipes_here_comes_first(demo, tmp_path):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "demo").symlink_to(ROOT / "recipes" / "demo")
    assert source(demo)[0].root == tmp_path / "recipes"

"""Recipes by name: one look-up for every command."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from engines.errors import RecipeError
from exporter import cli
from exporter.recipe import shipped
from exporter.recipe.schema import Recipe

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def told(path):
    with pytest.raises(RecipeError) as caught:
        shipped.find(Path(path))
    (problem,) = caught.value.problems
    return problem


def test_every_recipe_has_a_name_in_any_folder():
    files = sorted(path for path in (ROOT / "recipes").glob("*.yaml") if not path.name.startswith("sweep-"))
    assert shipped.recipes() == {path.stem: path for path in files}
    for name, path in shipped.recipes().items():
        assert shipped.find(Path(name)) == path


def test_a_recipe_loaded_by_name_is_the_file_s():
    recipe = Recipe.load(Path("sdxs-512-0.9"), ["sampler.steps=[1]"])  # a name whose end reads like a suffix
    assert (recipe.name, recipe.root) == ("sdxs-512-0.9", ROOT / "recipes")


def test_a_file_here_then_one_in_recipes_here_then_the_package_s(empty):
    (empty / "recipes").mkdir()
    (empty / "recipes" / "demo.yaml").write_text("mine")
    (empty / "recipes" / "other.yaml").write_text("mine")
    assert shipped.find(Path("demo")) == Path("recipes/demo.yaml")
    assert shipped.find(Path("other")) == Path("recipes/other.yaml")
    assert shipped.find(Path("demo-turbo")) == ROOT / "recipes" / "demo-turbo.yaml"
    (empty / "demo").write_text("a file")
    assert shipped.find(Path("demo")) == Path("demo")
    assert list(shipped.recipes()) == sorted(shipped.recipes())


def test_a_folder_of_the_name_is_no_recipe(empty):
    (empty / "demo").mkdir()
    assert shipped.find(Path("demo")) == ROOT / "recipes" / "demo.yaml"
    (empty / "folder").mkdir()
    expected = (
        "folder  is not a file, nor the name of a recipe; name a YAML file, or one of `t2iexport list recipes`, such as demo"
    )
    assert told("folder") == expected


def test_what_is_missing_is_told_with_what_is_near(empty):
    assert told("demo-turb") == "demo-turb  is not a file, nor the name of a recipe; did you mean 'demo-turbo'?"
    assert told("recipes/demo.yaml") == "recipes/demo.yaml  is not a file; did you mean 'demo'?"
    assert told("demo.yaml") == "demo.yaml  is not a file; did you mean 'demo'?"
    (empty / "mine.yaml").write_text("mine")
    assert told("mien.yaml") == "mien.yaml  is not a file; did you mean 'mine.yaml'?"


def test_a_package_without_its_recipes_says_so(empty, monkeypatch):
    monkeypatch.setattr(shipped.resources, "files", lambda _package: empty / "site" / "exporter")
    assert "site/recipes" in told("demo")
    (empty / "mine").write_text("a file needs none of them")
    assert shipped.find(Path("mine")) == Path("mine")


@pytest.mark.parametrize("verb", ["build", "distill", "inspect"])
def test_commands_tell_a_name_that_is_none(verb):
    with pytest.raises(RecipeError, match="did you mean 'demo-turbo'"):
        CliRunner().invoke(cli.verbs, [verb, "demo-turb"], catch_exceptions=False)


def test_inspect_takes_a_folder_for_a_bundle(empty):
    (empty / "demo").mkdir()
    done = CliRunner().invoke(cli.verbs, ["inspect", "demo"])
    assert type(done.exception).__name__ == "BundleError"

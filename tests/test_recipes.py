"""Every recipe that is shipped loads and plans, and says for whom it was made."""

import re
from pathlib import Path

import pytest

from exporter.recipe.schema import Recipe
from exporter.stages.plan import Plan
from exporter.sweep import points, spec

FILES = sorted((Path(__file__).parent.parent / "recipes").glob("*.yaml"))
SWEEPS = [path for path in FILES if path.name.startswith("sweep-")]
RECIPES = [path for path in FILES if path not in SWEEPS]


@pytest.fixture(autouse=True)
def scenes(tmp_path, monkeypatch):
    """Where recipes that train look for the pictures that their headers tell how to write."""
    (tmp_path / "scenes").mkdir()
    (tmp_path / "scenes" / "0.png").write_bytes(b"read later")
    (tmp_path / "scenes" / "0.txt").write_text("a red circle")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_it_loads_and_plans(path):
    recipe = Recipe.load(path)
    if "/" in recipe.model.source:  # on a hub, which no test may need: the same architecture, made up
        recipe = Recipe.load(path, ["model.revision=null", *without_weights(path)])
    plan = Plan(recipe)
    plan.refuse()
    verbs = {stage.verb for stage in plan.stages}
    assert {"tokenize", "compile", "export", "engine"} <= verbs
    assert len({stage.key.digest for stage in plan.stages}) == len(plan.stages)


def without_weights(path):
    """Each recipe's header says how to build it where the hub is out of reach."""
    line = next((line for line in path.read_text().splitlines() if "model.source=" in line), "")
    assert line, f"{path.name} does not say how to build it without a hub"
    return re.findall(r"--set (\S+)", line)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_its_header_names_the_schema_and_what_was_measured(path):
    first, *rest = path.read_text().splitlines()
    assert first == "# yaml-language-server: $schema=recipe.schema.json"
    header = " ".join(line for line in rest[:12] if line.startswith("#"))
    assert "easured" in header


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_sweep_s_points_are_recipes_that_plan(path):
    found = points.points(spec.load(path))
    assert not [point.problem for point in found if point.problem]
    plans = {point.bundle: points.plan_digest(point) for point in {point.bundle: point for point in found}.values()}
    assert all(plans.values())
    assert len(set(plans.values())) == len(plans)

"""A bundle that every example of CONTRIBUTING.md has had a part in."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from engines.bundle import Bundle, Verdict
from exporter.build import build
from exporter.parity import metrics
from exporter.recipe.schema import Recipe
from exporter.stages.store import Store
from tests.exporter import models
from tests.plugins import examples

RECIPE = """
model: {source: %s}
sampler: {scheduler: EulerDiscreteScheduler, config: {timestep_spacing: trailing}, steps: [2]}
shapes: {height: [32, 32, 32], width: [32, 32, 32], batch: [1, 1, 1]}
components: {unet: {passes: [round_weights: {bits: 10}]}}
targets: [onnxruntime, onnx_reference]
checks: {prompts: [a red circle], limits: {image: {cosine: 0.99}}}
"""


@dataclass
class Built:
    """The bundle, what was compared, and the recipe."""

    recipe: Recipe
    path: Path
    bundle: Bundle
    verdicts: list[Verdict]


def silent(stage, seconds=None, *, cached=False, why="", by=""):
    """Report nothing."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Kind of plugin → its example, in a folder of its own, found by whoever starts with this search path."""
    folder = tmp_path_factory.mktemp("packages")
    found = [examples.example(thing) for thing in examples.KINDS]
    with pytest.MonkeyPatch.context() as patch:
        for each in found:
            each.install(folder / each.name)
            patch.syspath_prepend(str(folder / each.name))
        patch.setenv("PYTHONPATH", ":".join(path for path in sys.path if path))
        yield {each.kind: each for each in found}
    for each in found:
        sys.modules.pop(each.name, None)


@pytest.fixture(scope="module")
def metric():
    """The example's metric, as if its lines stood in the file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "METRICS", dict(metrics.METRICS))
        exec(compile(examples.metric(), "metrics.py", "exec"), vars(metrics))  # noqa: S102 - the page's own text
        yield metrics.METRICS["cosine"]
        del metrics.cosine


@pytest.fixture(scope="module")
def built(installed, metric, tmp_path_factory) -> Built:  # noqa: ARG001 - they are asked for by the recipe's lines
    folder = tmp_path_factory.mktemp("built")
    recipe = Recipe.parse(RECIPE % models.save_sd(folder / "tiny_sd"), "plugins")
    bundle, verdicts = build(recipe, folder / "bundle", Store(folder / "store"), silent)
    return Built(recipe, folder / "bundle", bundle, verdicts)

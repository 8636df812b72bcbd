"""One bundle of a tiny SDXL model, built once, on every backend that builds here."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from engines.bundle import Bundle, Verdict
from exporter.build import build
from exporter.cache import Store
from exporter.recipe import Recipe
from tests.exporter import models

RECIPE = """
model: {source: %s}
sampler:
  scheduler: EulerDiscreteScheduler
  config: {timestep_spacing: trailing}
  steps: [4]
  guidance: {mode: classifier_free, scale: 5.0}
shapes: {height: [16, 32, 48], width: [16, 32, 48], batch: [1, 1, 2]}
components: {vae_encoder: {}}
targets: [onnxruntime, tensorrt_rtx]
checks: {prompts: [a red circle, the blue square]}
"""


def silent(stage, seconds=None, *, cached=False, why=""):
    """Report nothing."""


@dataclass
class Built:
    """A bundle, what made it, and what every stage said."""

    recipe: Path
    store: Path
    path: Path
    bundle: Bundle
    verdicts: list[Verdict]


@pytest.fixture(scope="session")
def tiny_sdxl(tmp_path_factory) -> Path:
    return models.save_sdxl(tmp_path_factory.mktemp("tiny_sdxl"))


@pytest.fixture(scope="session")
def built(tiny_sdxl, tmp_path_factory) -> Built:
    folder = tmp_path_factory.mktemp("built")
    recipe = folder / "tiny.yaml"
    recipe.write_text(RECIPE % tiny_sdxl)
    bundle, verdicts = build(Recipe.load(recipe), folder / "bundles" / "tiny", Store(folder / "store"), silent)
    return Built(recipe, folder / "store", folder / "bundles" / "tiny", bundle, verdicts)

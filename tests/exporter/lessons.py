"""A recipe that trains, made small; what tests of passes that train share."""

import json

import numpy as np
from PIL import Image

from exporter import build
from exporter.cache import Store
from exporter.recipe import Recipe

RECIPE = """
model: {source: SOURCE}
sampler: {scheduler: EulerDiscreteScheduler, steps: [2], guidance: {mode: classifier_free, scale: 3.0}}
shapes: {height: [32, 32, 32], width: [32, 32, 32], batch: [1, 1, 1]}
components:
  unet:
    passes:
      - prune: {blocks: {mid_block: null}}
      - distill: {data: DATA, steps: 4, batch: 4, learning_rate: 1.0e-3, checkpoint_every: 2}
checks: {prompts: [a red circle]}
"""


def pictures(folder):
    """Write six pictures with captions."""
    rng = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(rng.integers(0, 255, (40, 48, 3), np.uint8)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("a red circle" if number % 2 else "the blue square")
    return folder


def read(text, **changes):
    recipe = Recipe.parse(text, "taught")
    prune, distill = recipe.components["unet"].passes
    passes = [prune, {"distill": distill["distill"] | changes}]
    return Recipe.parse(text, "taught", overrides=[f"components.unet.passes={json.dumps(passes)}"])


def rows(folder):
    return [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]


def train(recipe, root):
    return build.distill(recipe, Store(root), lambda *_, **__: None)["unet"]


def learns(text, *passes, **sampler):
    """The recipe with these passes of its UNet, and this sampler."""
    known = {"scheduler": "EulerDiscreteScheduler", "config": {"timestep_spacing": "trailing"}, "steps": [2]}
    changes = {"components.unet.passes": list(passes), "sampler": known | sampler}
    return Recipe.parse(text, "taught", overrides=[f"{path}={json.dumps(value)}" for path, value in changes.items()])

"""A recipe that trains, made small; what tests of passes that train share."""

import json
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image
from torch.nn.modules.module import register_module_forward_pre_hook

from exporter import build
from exporter.recipe.schema import Recipe
from exporter.stages.store import Store
from exporter.training import trainer

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
    with aligned():
        return build.distill(recipe, Store(root), lambda *_, **__: None)["unet"]


@contextmanager
def aligned():
    """Hold every layer that takes part in a training to weights and inputs that are aligned as torch aligns what it allocates.

    And those that teach to weights that ask for no gradient. Kernels are chosen by both, and differ in their last digit: whether
    a training that was killed repeats one that was not would depend on the processor.
    """
    run, seen, asking = trainer.Training.run, [], set()

    def look(layer, _inputs):
        weights = [tensor for tensor in layer._parameters.values() if tensor is not None]
        seen.extend((type(layer).__name__, weight.data_ptr()) for weight in weights)
        if not torch.is_grad_enabled() and any(weight.requires_grad for weight in weights):
            asking.add(type(layer).__name__)

    def watched(self):
        hook, draw = register_module_forward_pre_hook(look), self._losses.draw
        self._losses.draw = lambda share: _drawn(draw(share), seen)
        try:
            return run(self)
        finally:
            hook.remove()
            del self._losses.draw

    trainer.Training.run = watched
    try:
        yield
    finally:
        trainer.Training.run = run
    assert not {name for name, place in seen if place % 64}
    assert not asking


def _drawn(tensors, seen):
    seen.extend(("drawn", tensor.data_ptr()) for tensor in tensors if tensor.is_floating_point())
    return tensors


def learns(text, *passes, **sampler):
    """The recipe with these passes of its UNet, and this sampler."""
    known = {"scheduler": "EulerDiscreteScheduler", "config": {"timestep_spacing": "trailing"}, "steps": [2]}
    changes = {"components.unet.passes": list(passes), "sampler": known | sampler}
    return Recipe.parse(text, "taught", overrides=[f"{path}={json.dumps(value)}" for path, value in changes.items()])

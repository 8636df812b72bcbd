"""One bundle of a tiny SDXL model, built once, on every backend that builds here."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
from filelock import FileLock

from engines.bundle import Bundle, Verdict
from exporter.build import build
from exporter.recipe.schema import Recipe
from exporter.stages.store import Store
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


def silent(stage, seconds=None, *, cached=False, why="", by=""):
    """Report nothing."""


def standard_tools_open(folder):
    """Open every graph of a bundle, with its weights, as ONNX's own tools do; return how many there were."""
    graphs = sorted(folder.rglob("*.onnx"))
    for graph in graphs:
        onnx.checker.check_model(str(graph))
        assert onnx.load(graph).graph.node
        for value in ir.load(graph).graph.initializers.values():
            assert value.const_value.numpy().shape == tuple(value.shape)
    return len(graphs)


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
    """Two stages have all that three have, and make exports and engines in half the time."""
    stages = {
        "block_out_channels": [8, 16],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [1, 2],
        "attention_head_dim": [1, 2],
    }
    return models.save_sdxl(tmp_path_factory.mktemp("tiny_sdxl"), network=models.unet_xl(**stages))


@pytest.fixture(scope="session")
def built(tiny_sdxl, tmp_path_factory) -> Built:
    """The bundle, from a store of this test process; what is slow in it was made by whichever process came first."""
    folder, base = tmp_path_factory.mktemp("built"), tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "built_once"
    recipe, processors = folder / "tiny.yaml", folder / "processors.yaml"
    recipe.write_text(RECIPE % tiny_sdxl)
    processors.write_text(recipe.read_text().replace("[onnxruntime, tensorrt_rtx]", "[onnxruntime]"))
    with FileLock(shared.with_suffix(".lock")):
        bundle, verdicts = build(Recipe.load(recipe), folder / "bundles" / "tiny", Store(shared), silent)
        build(Recipe.load(processors), folder / "bundles" / "processors", Store(shared), silent)
        shutil.copytree(shared, folder / "store")
    return Built(recipe, folder / "store", folder / "bundles" / "tiny", bundle, verdicts)


@pytest.fixture(scope="session")
def processors(built) -> Path:
    """A recipe without TensorRT-RTX: its engines run on processors, which have graphs of their own. It is in the store."""
    return built.recipe.with_name("processors.yaml")

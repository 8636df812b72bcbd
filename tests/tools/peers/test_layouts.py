"""The other tools draw our picture from the folders that `convert` writes, each in an environment of its own."""

import os
from pathlib import Path

import numpy as np
import pytest

from engines.pipeline import Pipeline
from exporter.bench import run
from exporter.build import build, convert
from exporter.recipe.schema import Recipe
from exporter.stages.store import Store
from tests.e2e.conftest import silent
from tools.peers import bench

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

ROOT = Path(__file__).parents[3]
TASK = run.Task(prompt="a green star on a white background", steps=10, height=64, width=64, guidance_scale=3.0)
#: Layout → who reads it.
READERS = {"optimum": ["optimum-onnx"], "openvino-genai": ["openvino-genai", "optimum-intel"]}


@pytest.mark.parametrize("layout", READERS)
def test_they_draw_our_picture(layout, tmp_path):
    """At least 40 dB on the same noise, in 8 bits."""
    recipe = Recipe.load(ROOT / "recipes/demo.yaml", ["targets=[onnxruntime]", "checks.skip=drawn with others"])
    store = Store()
    build(recipe, tmp_path / "demo", store, silent)
    convert(tmp_path / "demo", layout, tmp_path / layout, store, silent, print)
    root = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "t2iexport-peers"
    with Pipeline.open(tmp_path / "demo") as pipeline:
        noise = pipeline.seeded(run.SEED, 1, TASK.height, TASK.width)()
        (own,) = pipeline.generate(TASK.prompt, steps=TASK.steps, noise=noise)
    np.save(tmp_path / "noise.npy", noise)
    for name in READERS[layout]:
        bench.install(root / bench.PEERS[name], bench.PLACES[bench.PEERS[name]])
        with bench.peer(name, root / bench.PEERS[name], tmp_path / layout, tmp_path, TASK) as reader:
            (drawn,) = reader.draw(1)
        likeness = run.likeness([drawn], [own])
        assert likeness >= 40, f"{name}: {likeness:.1f} dB"

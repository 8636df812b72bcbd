"""A bundle that is one graph from prompt to picture, from its recipe to its pictures."""

import pytest

from engines.pipeline import Pipeline
from exporter.build import build
from exporter.recipe.schema import Recipe
from exporter.stages.store import Store
from tests.e2e.conftest import RECIPE, silent, standard_tools_open

pytestmark = [pytest.mark.timeout(1200), pytest.mark.long]


def test_a_fused_bundle_has_the_weights_once_and_draws(tiny_sdxl, tmp_path):
    text = RECIPE.replace("[16, 32, 48]", "[32, 32, 32]").replace("[1, 1, 2]", "[1, 1, 1]").replace("steps: [4]", "steps: [1, 2]")
    text = text.replace("components: {vae_encoder: {}}", "pipeline: fused").replace("tensorrt_rtx", "openvino") % tiny_sdxl
    bundle, verdicts = build(Recipe.parse(text, "fused"), tmp_path / "fused", Store(tmp_path / "store"), silent)
    assert all(verdict.passed for verdict in verdicts)
    assert {verdict.backend for verdict in verdicts if verdict.part == "end to end"} >= {"onnxruntime", "openvino"}
    assert standard_tools_open(tmp_path / "fused") == 6  # four parts, two numbers of steps
    assert [file.name for file in (tmp_path / "store").rglob("unet.onnx.data")] == ["unet.onnx.data"]
    for backend in ("onnxruntime", "openvino"):
        with Pipeline.open(bundle.folder, backend) as pipeline:
            assert pipeline.generate("a red circle", steps=2)[0].size == (32, 32)

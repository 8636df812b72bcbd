"""A recipe whose scale switches guidance off builds, is checked with guidance too, and draws what diffusers draws then."""

import numpy as np
import pytest
import torch

from engines.pipeline import Pipeline
from exporter.build import build
from exporter.families import claim
from exporter.models.resolve import resolve
from exporter.recipe.schema import Recipe
from exporter.stages.store import Store
from tests.e2e.conftest import RECIPE, silent

pytestmark = pytest.mark.timeout(1200)


def test_scale_0_is_the_prompt_alone_as_in_diffusers_with_its_seed(tiny_sdxl, built, tmp_path):
    text = (RECIPE % tiny_sdxl).replace("scale: 5.0", "scale: 0").replace("[onnxruntime, tensorrt_rtx]", "[onnxruntime]")
    recipe = Recipe.parse(text, "off")
    # The graphs are those of `built`; only what is recorded is other.
    bundle, verdicts = build(recipe, tmp_path / "off", Store(built.store), silent)
    assert [verdict for verdict in verdicts if not verdict.passed] == []
    assert any("guidance on" in verdict.case for verdict in verdicts if verdict.part == "unet")
    assert any("guidance is off, as in diffusers" in note for note in bundle.manifest.notes)
    source = claim(resolve(recipe.model, tmp_path), recipe).pipeline()
    source.set_progress_bar_config(disable=True)
    drawn = source(
        "a red circle",
        negative_prompt="the blue square",
        guidance_scale=0.0,
        num_inference_steps=4,
        height=32,
        width=32,
        generator=torch.Generator().manual_seed(7),
        output_type="np",
    ).images[0]
    with Pipeline.open(bundle.folder) as pipeline:
        (own,) = pipeline.generate("a red circle", negative_prompt="the blue square", seed=7, generator="torch-cpu")
        assert own.info["guidance_scale"] == "0.0"
    assert np.abs(np.asarray(own) / 255 - drawn).max() <= 1.5 / 255

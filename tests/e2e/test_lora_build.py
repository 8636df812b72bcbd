"""A bundle with LoRAs fused in is held to the fused source, and says what is in it."""

import pytest

from engines.bundle import Bundle
from exporter.build import build
from exporter.recipe.schema import Recipe
from exporter.stages.store import Store
from tests.e2e.conftest import silent
from tests.exporter import loras

RECIPE = """\
model:
  source: %s
  loras: [{source: %s, scale: 0.7}, {source: %s}]
sampler: {scheduler: LCMScheduler, config: {original_inference_steps: 50}, steps: [2], guidance: {mode: none}}
shapes: {height: [32, 32, 32], width: [32, 32, 32], batch: [1, 1, 1]}
targets: [onnxruntime]
"""
#: Component → endings of the layers that are changed.
NETWORKS = {"unet": loras.UNET, "text_encoder": loras.TEXT, "text_encoder_2": loras.TEXT}


@pytest.mark.slow
def test_it_builds_checks_and_says_what_is_in_it(tiny_sdxl, tmp_path):
    from diffusers import StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl)
    layers = [
        {name: loras.layers(getattr(pipeline, name), endings, seed=seed) for name, endings in NETWORKS.items()} for seed in (1, 2)
    ]
    lcm = loras.save_kohya(tmp_path / "tiny-lcm-lora.safetensors", layers[0], step=1.0)
    style = loras.save(tmp_path / "style.safetensors", layers[1])
    recipe = tmp_path / "fused.yaml"
    recipe.write_text(RECIPE % (tiny_sdxl, lcm, style))
    bundle, verdicts = build(Recipe.load(recipe), tmp_path / "bundles" / "fused", Store(tmp_path / "store"), silent)
    assert verdicts
    assert [verdict for verdict in verdicts if not verdict.passed] == []
    assert {("end to end", "image"), ("unet", "source → passes")} <= {(verdict.part, verdict.stage) for verdict in verdicts}
    assert bundle.manifest.source["lora 1"] == f"{lcm} × 0.7"
    assert bundle.manifest.source["lora 2"] == f"{style} × 1"
    assert not [note for note in bundle.manifest.notes if note.startswith(("forced", "unusual"))]
    assert Bundle.open(bundle.folder)

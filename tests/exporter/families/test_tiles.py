"""A decoder that goes over large latents tile by tile: planned, recorded, built and held to the source in the same tiles."""

import numpy as np
import pytest

from engines.errors import RecipeError
from engines.pipeline import Pipeline
from exporter.build import build
from exporter.recipe.schema import Recipe
from exporter.stages.plan import Plan
from exporter.stages.store import Store

RECIPE = """
model: {source: %s}
sampler: {scheduler: EulerDiscreteScheduler, steps: [2], guidance: {mode: classifier_free, scale: 3.0}}
shapes: {height: [32, 64, 96], width: [32, 96, 96], batch: [1, 1, 1]}
components:
  vae_decoder: {tile: {size: 16, overlap: 8}}
targets: [onnxruntime]
checks: {prompts: [a red circle]}
"""


@pytest.fixture(scope="module")
def text(tiny_sdxl):
    return RECIPE % tiny_sdxl


def plan(text, *overrides):
    return Plan(Recipe.parse(text, "tiled", overrides=overrides))


def silent(stage, seconds=None, *, cached=False, why="", by=""):
    """Report nothing."""


@pytest.mark.long
def test_a_tiled_bundle_is_right_and_near_to_the_untiled_one(text, tmp_path):
    store = Store(tmp_path / "store")
    folders = []
    for name, overrides in (("tiled", ()), ("whole", ("components={}",))):
        recipe = Recipe.parse(text, name, overrides=overrides)
        made, verdicts = build(recipe, tmp_path / name, store, silent)
        assert all(verdict.passed for verdict in verdicts)
        folders.append(made)
    tiled, whole = folders
    assert tiled.manifest.parts["vae_decoder"].tile.size == 16
    assert tiled.manifest.parts["vae_decoder"].signature.dims["latent_width"].max == 16
    image = next(verdict for verdict in tiled.manifest.verdicts if verdict.stage == "image")
    assert image.values["psnr"] > 80, "the engine in tiles is the source in tiles"
    latent = np.random.default_rng(0).standard_normal((1, 4, 24, 24), dtype=np.float32)
    with Pipeline.open(tiled.folder) as one, Pipeline.open(whole.folder) as other:
        assert one.sizes == other.sizes
        found, wanted = one.decode(latent), other.decode(latent)
    psnr = -10 * np.log10(np.mean((found - wanted) ** 2))
    assert psnr > 30, "tiles differ from the whole by their group norms alone"
    # Two tiles along each axis, from cells 0 and 8: their edges stand before pixels 32 and 64.
    off = (found - wanted)[0]
    for axis in (0, 1):
        steps = np.abs(np.diff(off.mean(axis=1 - axis), axis=0)).max(-1)
        assert steps[[31, 63]].max() < np.quantile(steps, 0.95), "what differs does not begin or end at a tile's edge"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "components.vae_decoder.tile={size: 18, overlap: 4}",
            "18 is not a multiple of 4, as all of this recipe's latents are; nearest: 16 or 20",
        ),
        ("components.unet.tile={size: 16, overlap: 4}", "components.unet.tile: only vae_decoder has tiles"),
        ("components.vae_decoder.tile={size: 16, overlap: 12}", "more than half of size 16"),
    ],
)
def test_tiles_that_cannot_be(text, override, said):
    with pytest.raises(RecipeError, match=said):
        plan(text, override)


def test_a_fused_pipeline_decodes_at_once(text):
    fixed = [f"shapes.{axis}=[64, 64, 64]" for axis in ("height", "width")]
    with pytest.raises(RecipeError, match=r"components\.vae_decoder\.tile: a fused pipeline decodes at once"):
        plan(text, "pipeline=fused", "shapes.batch=[1, 1, 1]", *fixed)


def test_other_tiles_are_recorded_and_built_anew(text):
    keys = [
        {f"{stage.verb} {stage.subject}": stage.key.digest for stage in plan(text, *overrides).stages}
        for overrides in ((), ("components.vae_decoder.tile.overlap=4",))
    ]
    changed = {name for name in keys[0] if keys[0][name] != keys[1][name]}
    assert "record source" in changed
    assert not any("unet" in name and "measure" not in name for name in changed)

"""A pipeline that nobody wrote a family for goes from its folder to a checked bundle, which draws diffusers' pictures."""

import numpy as np
import pytest
import torch

from engines.pipeline import Pipeline
from exporter.build import build
from exporter.recipe.schema import Recipe
from exporter.stages.store import Store
from tests.e2e.conftest import silent
from tests.exporter.families.test_traced import MODES, RECIPE
from tools.coverage.models import MADE

pytestmark = pytest.mark.long

#: Micro model → mode of guidance, and arguments of diffusers' call beside the usual ones.
FIRST = {"pixart-sigma": ("classifier_free", {"use_resolution_binning": False})}
REST = {
    "stable-diffusion-3": ("classifier_free", {}),
    "flux-guided": ("embedded", {}),
    "auraflow": ("classifier_free", {}),
}


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", [*FIRST, *(pytest.param(name, marks=pytest.mark.slow) for name in REST)])
def test_the_bundle_draws_what_diffusers_draws(name, tmp_path):
    mode, options = (FIRST | REST)[name]
    source = MADE[name]()
    source.save_pretrained(tmp_path / "model")
    recipe = Recipe.parse(RECIPE % (tmp_path / "model", MODES[mode]), name)
    bundle, verdicts = build(recipe, tmp_path / "bundle", Store(tmp_path / "store"), silent)
    assert [verdict for verdict in verdicts if not verdict.passed] == []
    source.set_progress_bar_config(disable=True)
    with Pipeline.open(bundle.folder) as pipeline:
        for height, width in ((32, 32), (32, 48)):
            asked = {"prompt": "A red circle", "height": height, "width": width, "num_inference_steps": 2, **options}
            asked |= {"negative_prompt": "Blurry"} if mode == "classifier_free" else {}
            drawn = source(**asked, generator=torch.Generator().manual_seed(7), output_type="np", guidance_scale=2.5).images[0]
            given = {key: asked[key] for key in ("height", "width", "negative_prompt") if key in asked}
            scale = {} if mode == "none" else {"guidance_scale": 2.5}
            (own,) = pipeline.generate("A red circle", seed=7, generator="torch-cpu", **given, **scale)
            assert np.abs(np.asarray(own) / 255 - drawn).max() <= 1.5 / 255

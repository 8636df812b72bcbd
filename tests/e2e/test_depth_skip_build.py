"""Pipelines that are steered by pictures go without the innermost blocks of their UNet to a checked bundle."""

import inspect

import numpy as np
import pytest
import torch

from engines.pipeline import Pipeline
from exporter.build import build
from exporter.passes.prune import Prune
from exporter.pruning.surgery import carry_out
from exporter.recipe.schema import Recipe
from exporter.stages.store import Store
from tests.e2e.conftest import silent
from tests.e2e.test_conditioned_build import shown
from tests.exporter.families.test_traced import MODES, RECIPE
from tools.coverage import trial
from tools.coverage.models import BESIDE, MADE

pytestmark = pytest.mark.long
SKIP = {"preset": "depth-skip", "depth": 3}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "name",
    [
        "stable-diffusion-controlnet",
        pytest.param("instruct-pix2pix", marks=pytest.mark.slow),
        pytest.param("stable-diffusion-x4-upscaler", marks=pytest.mark.slow),
    ],
)
def test_the_bundle_draws_what_diffusers_draws_with_what_is_left(name, tmp_path):
    source = {**MADE, **BESIDE}[name]()
    source.save_pretrained(tmp_path / "model")
    text = f"{RECIPE % (tmp_path / 'model', MODES['classifier_free'])}components: {{unet: {{passes: [prune: {SKIP}]}}}}\n"
    bundle, verdicts = build(Recipe.parse(text, name), tmp_path / "bundle", Store(tmp_path / "store"), silent)
    assert [verdict for verdict in verdicts if not verdict.passed] == []
    whole, source.unet = source.unet, carry_out(source.unet, Prune(**SKIP)._cut(source.unet.config))
    source.set_progress_bar_config(disable=True)
    takes, random = inspect.signature(source.__call__).parameters, np.random.default_rng(0)
    with Pipeline.open(bundle.folder) as pipeline:
        for size in ((32, 32), (32, 48)):
            smaller = 4 if "x4" in name else 1
            inputs = {"image": shown("image", (size[0] // smaller, size[1] // smaller), random)}
            given = {"negative_prompt": "Blurry", "guidance_scale": 2.5}
            asked = {"num_inference_steps": 2, "height": size[0], "width": size[1], **trial.handed({"image": [inputs["image"]]})}
            asked = {key: value for key, value in (asked | given).items() if key in takes}
            drawn = source("A red circle", **asked, generator=torch.Generator().manual_seed(7), output_type="np").images[0]
            (own,) = pipeline.generate("A red circle", seed=7, generator="torch-cpu", inputs=inputs, **given)
            assert np.abs(np.asarray(own) / 255 - drawn).max() <= 1.5 / 255
        source.unet = whole
        other = source("A red circle", **asked, generator=torch.Generator().manual_seed(7), output_type="np").images[0]
        assert np.abs(np.asarray(own) / 255 - other).max() > 10 / 255

"""A pipeline that takes pictures goes from its folder to a checked bundle, which draws diffusers' pictures of them."""

import inspect

import numpy as np
import pytest
import torch
from PIL import Image

from engines.errors import UnsupportedError
from engines.pipeline import Pipeline
from exporter.build import build
from exporter.recipe.schema import Recipe
from exporter.stages.store import Store
from tests.e2e.conftest import silent
from tests.exporter.families.test_traced import MODES, RECIPE
from tools.coverage import conditioned, trial

#: Micro model → its inputs.
NAMES = {
    "stable-diffusion-controlnet": ["image"],
    "stable-diffusion-controlnets": ["image", "image_2"],
    "stable-diffusion-xl-controlnet": ["image"],
    "stable-diffusion-inpaint": ["image", "mask"],
    "instruct-pix2pix": ["image"],
    "stable-diffusion-adapter": ["image"],
}


def shown(name, size, random):
    """A picture, or a mask whose right half is white."""
    if name == "mask":
        levels = np.zeros((*size, 1), np.uint8)
        levels[:, size[1] // 2 :] = 255
        return Image.fromarray(levels[..., 0])
    return Image.fromarray(random.integers(0, 256, (4, 4, 3), np.uint8)).resize(size[::-1], Image.Resampling.BICUBIC)


def test_every_micro_model_that_is_built_is_held_to_diffusers():
    assert {*NAMES} == {*conditioned.MADE}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore:The decode_latents method:FutureWarning")  # T2I-Adapters' pipeline calls its own
@pytest.mark.parametrize("name", NAMES)
def test_the_bundle_draws_what_diffusers_draws(name, tmp_path):
    source, names = conditioned.MADE[name](), NAMES[name]
    source.save_pretrained(tmp_path / "model")
    recipe = Recipe.parse(RECIPE % (tmp_path / "model", MODES["classifier_free"]), name)
    bundle, verdicts = build(recipe, tmp_path / "bundle", Store(tmp_path / "store"), silent)
    assert [verdict for verdict in verdicts if not verdict.passed] == []
    source.set_progress_bar_config(disable=True)
    takes, random = inspect.signature(source.__call__).parameters, np.random.default_rng(0)
    with Pipeline.open(bundle.folder) as pipeline:
        with pytest.raises(UnsupportedError, match=f"this bundle needs the input {names[0]}, a picture"):
            pipeline.generate("A red circle")
        with pytest.raises(UnsupportedError, match="40x40 pixels"):
            pipeline.generate("A red circle", inputs=dict.fromkeys(names, Image.new("RGB", (40, 40))))
        for size, scale in (((32, 32), 2.5), ((32, 48), 2.5), ((32, 32), 1.0)):
            inputs = {each: shown(each, size, random) for each in names}
            asked = {"num_inference_steps": 2, "strength": 1.0, "height": size[0], "width": size[1]}
            asked |= trial.handed({each: [image] for each, image in inputs.items()})
            given = {"negative_prompt": "Blurry", "guidance_scale": scale}
            asked = {key: value for key, value in (asked | given).items() if key in takes}
            drawn = source("A red circle", **asked, generator=torch.Generator().manual_seed(7), output_type="np").images[0]
            (own,) = pipeline.generate("A red circle", seed=7, generator="torch-cpu", inputs=inputs, **given)
            assert np.abs(np.asarray(own) / 255 - drawn).max() <= 1.5 / 255

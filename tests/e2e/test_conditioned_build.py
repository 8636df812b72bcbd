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
from tools.coverage import conditioned

#: Micro model → what diffusers calls its inputs.
NAMES = {
    "stable-diffusion-controlnet": {"image": "image"},
    "stable-diffusion-xl-controlnet": {"image": "image"},
    "stable-diffusion-inpaint": {"image": "image", "mask": "mask_image"},
    "instruct-pix2pix": {"image": "image"},
}


def shown(name, size, random):
    """A picture, or a mask whose right half is white."""
    if name == "mask":
        levels = np.zeros((*size, 1), np.uint8)
        levels[:, size[1] // 2 :] = 255
        return Image.fromarray(levels[..., 0])
    return Image.fromarray(random.integers(0, 256, (4, 4, 3), np.uint8)).resize(size[::-1], Image.Resampling.BICUBIC)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", NAMES)
def test_the_bundle_draws_what_diffusers_draws(name, tmp_path):
    source = conditioned.MADE[name]()
    source.save_pretrained(tmp_path / "model")
    recipe = Recipe.parse(RECIPE % (tmp_path / "model", MODES["classifier_free"]), name)
    bundle, verdicts = build(recipe, tmp_path / "bundle", Store(tmp_path / "store"), silent)
    assert [verdict for verdict in verdicts if not verdict.passed] == []
    source.set_progress_bar_config(disable=True)
    takes, random = inspect.signature(type(source).__call__).parameters, np.random.default_rng(0)
    with Pipeline.open(bundle.folder) as pipeline:
        inputs = {"image": Image.new("RGB", (32, 32))}
        with pytest.raises(UnsupportedError, match="this bundle needs the input image, a picture"):
            pipeline.generate("A red circle")
        with pytest.raises(UnsupportedError, match="40x40 pixels"):
            pipeline.generate("A red circle", inputs={**dict.fromkeys(NAMES[name], Image.new("RGB", (40, 40)))})
        for size, scale in (((32, 32), 2.5), ((32, 48), 2.5), ((32, 32), 1.0)):
            inputs = {each: shown(each, size, random) for each in NAMES[name]}
            asked = {NAMES[name][each]: image for each, image in inputs.items()}
            asked |= {key: value for key, value in zip(("height", "width"), size, strict=True) if key in takes}
            asked |= {"negative_prompt": "Blurry", "num_inference_steps": 2, "guidance_scale": scale}
            drawn = source("A red circle", **asked, generator=torch.Generator().manual_seed(7), output_type="np").images[0]
            given = {"negative_prompt": "Blurry", "inputs": inputs, "guidance_scale": scale}
            (own,) = pipeline.generate("A red circle", seed=7, generator="torch-cpu", **given)
            assert np.abs(np.asarray(own) / 255 - drawn).max() <= 1.5 / 255

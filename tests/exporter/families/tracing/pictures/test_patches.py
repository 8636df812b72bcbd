"""Patches of a picture in torch are those of transformers' image processor."""

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from engines.errors import UnsupportedError
from engines.inputs import Preprocessing
from exporter.families.tracing.pictures import patches


def smooth(height, width):
    colours = np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(colours).resize((width, height))


@pytest.mark.parametrize(("sides", "grid"), [((96, 128), (1, 6, 10)), ((420, 280), (1, 20, 14)), ((112, 84), (1, 8, 6))])
def test_patches_are_those_of_transformers(sides, grid):
    processor = transformers.Qwen2VLImageProcessorPil(size={"shortest_edge": 8 * 28**2, "longest_edge": 80 * 28**2})
    made, picture = patches.of(processor, sides), smooth(*sides)
    wanted = processor(images=[picture], return_tensors="pt")
    assert made.grid == grid == tuple(wanted["image_grid_thw"][0].tolist())
    assert made.tokens == grid[1] * grid[2] // 4
    levels = torch.from_numpy(np.asarray(picture, np.float32)).permute(2, 0, 1)[None]
    off = (made(levels) - wanted["pixel_values"]).abs()
    assert off.max() < 1e-5
    assert made.blank(2).shape == (2 * len(off), off.shape[1])
    assert made.grids(2).tolist() == [list(grid)] * 2
    assert patches.of(processor, sides) is made


def test_levels_are_what_a_bundle_s_preprocessing_began_with():
    whole = torch.arange(256.0).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    about = Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.5, 0.2, 0.3))
    mean, std = (torch.tensor(each).reshape(-1, 1, 1) for each in (about.mean, about.std))
    assert torch.equal(patches.levels((whole / 255 - mean) / std, about), whole)


def test_an_image_processor_that_does_something_else_is_refused():
    with pytest.raises(UnsupportedError, match="CLIPImageProcessorPil makes no patches in a grid"):
        patches.Patches(transformers.CLIPImageProcessorPil(), (64, 64))
    odd = transformers.Qwen2VLImageProcessorPil(size={"shortest_edge": 28**2, "longest_edge": 80 * 28**2})
    odd.image_mean, odd.rescale_factor = [0.5] * 3, 1 / 127.5
    with pytest.raises(UnsupportedError, match="makes patches in another way than is known"):
        patches.Patches(odd, (64, 64))

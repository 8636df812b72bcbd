"""Pictures of one channel are tensors without it to a pipeline."""

import numpy as np
import torch
from diffusers import FluxPipeline, StableDiffusionDepth2ImgPipeline
from PIL import Image

from exporter.families.tracing.following.origins import marked, origins
from exporter.families.tracing.pictures import depth_maps


def test_they_are_known_by_name():
    assert depth_maps.named(StableDiffusionDepth2ImgPipeline) == ["depth_map"]
    assert depth_maps.named(FluxPipeline) == []


def test_a_tensor_keeps_its_origin_and_its_first_channel():
    given = marked(torch.rand(2, 3, 4, 5), "depth_map")
    made = depth_maps.handed(given)
    assert torch.equal(made, given[:, 0])
    assert origins(made) == {"depth_map"}


def test_pictures_are_levels_between_0_and_1():
    grey = Image.fromarray(np.array([[0, 51], [255, 102]], np.uint8))
    made = depth_maps.handed([grey, grey.convert("RGB")])
    assert (made.shape, made.dtype) == ((2, 2, 2), torch.float32)
    torch.testing.assert_close(made[0], torch.tensor([[0.0, 0.2], [1.0, 0.4]]))
    torch.testing.assert_close(made[1], made[0])

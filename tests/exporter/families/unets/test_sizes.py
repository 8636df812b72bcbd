"""Pictures of every size that diffusers draws, as it draws them; graphs of even sizes stay as they were."""

import numpy as np
import onnxruntime
import pytest
import torch

from exporter.families.sd import Sd
from exporter.families.unets.sizes import LatentSizes
from exporter.onnx.export import export, save
from exporter.recipe.schema import Shapes
from tests.exporter import equality

#: Four stages, eight pixels a cell, as SD and SDXL have them.
UNET = {
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}


def sizes(height, width, **unet):
    return LatentSizes({**UNET, **unet}, 8, Shapes(height=height, width=width, batch=(1, 1, 1)))


@pytest.mark.parametrize(
    ("height", "multiple"),
    [((512, 768, 1024), 8), ((1080, 1080, 1080), 1), ((512, 1072, 1072), 2), ((512, 544, 1024), 4), ((512, 520, 1024), 1)],
)
def test_steps_are_as_large_as_the_recipe_s_sizes_allow(height, multiple):
    found = sizes(height, (1920, 1920, 1920))
    assert (found.dims["latent_height"].multiple, found.dims["latent_width"].multiple) == (multiple, 8)
    assert found.crops == (multiple < 8)
    assert list(found.problems()) == []


@pytest.mark.parametrize(
    "unet",
    [{"downsample_padding": 0}, {"down_block_types": ["ResnetDownsampleBlock2D"] * 4}, {"up_block_types": ["AttnUpBlock2D"] * 4}],
)
def test_a_unet_that_does_not_round_up_takes_even_sizes_alone(unet):
    found = sizes((1080, 1080, 1080), (512, 512, 512), **unet)
    assert list(found.problems()) == [
        "shapes.height: 1080 px is not a multiple of 64 (8 for the VAE times 8 for the UNet); nearest: 1024 or 1088"
    ]


def odd(family):
    shapes = Shapes(height=(40, 48, 56), width=(24, 56, 88), batch=(1, 1, 2))
    return family.replacing(recipe=family.recipe.model_copy(update={"shapes": shapes}))


@pytest.mark.long
def test_one_graph_draws_every_odd_size_as_diffusers_does(tiny_sd, tmp_path):
    even = equality.family(Sd, tiny_sd)
    part, plain = odd(even).part("unet", "fp32"), even.part("unet", "fp32").module
    dims = part.signature.dims
    assert (dims["latent_height"].multiple, dims["latent_width"].multiple) == (2, 2)
    save(export(part, 20, processor=True), tmp_path / "unet.onnx")
    session, random = onnxruntime.InferenceSession(tmp_path / "unet.onnx"), np.random.default_rng(0)
    for height, width in ((10, 22), (14, 6), (12, 14)):
        shapes = {port.name: part.signature.shape(port, {"batch": 2, "latent_height": height, "latent_width": width})
                  for port in part.signature.inputs}  # fmt: skip
        feeds = {name: random.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
        with torch.no_grad():  # diffusers' own forward, which asks whether the sides are even
            expected = plain(*map(torch.from_numpy, feeds.values()))
        equality.close(torch.from_numpy(session.run(None, feeds)[0]), expected)


def test_graphs_of_even_sizes_are_as_before(tiny_sd):
    unet = equality.family(Sd, tiny_sd).part("unet", "fp32").module.unet
    assert unet.num_upsamplers == 2
    assert all(upsampler.interpolate for block in unet.up_blocks for upsampler in block.upsamplers or ())

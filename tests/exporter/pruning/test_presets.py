"""Presets are the published networks to the parameter, and fit every UNet of their kind."""

import re
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from engines.errors import UnsupportedError
from exporter.models import architectures, weights
from exporter.models.resolve import resolve
from exporter.passes.prune import Prune
from exporter.pruning import blocks
from exporter.pruning.origin import came_from
from exporter.pruning.presets import PRESETS, depth_skip
from exporter.recipe.schema import ModelOptions
from tests.exporter import models
from tests.exporter.pruning.cuts import cut

#: Source, preset, what it must equal, parameters of its UNet.
PUBLISHED = [
    ("sd-v1-5", "bk-sdm-base", "bk-sdm-base", 579_384_964),
    ("sd-v1-5", "bk-sdm-small", "bk-sdm-small", 482_346_884),
    ("sd-v1-5", "bk-sdm-tiny", "bk-sdm-tiny", 323_384_964),
    ("sd-v2-1-base", "bk-sdm-base", "bk-sdm-v2-base", 583_480_964),
    ("sd-v2-1-base", "bk-sdm-small", "bk-sdm-v2-small", 485_787_524),
    ("sd-v2-1-base", "bk-sdm-tiny", "bk-sdm-v2-tiny", 326_825_604),
    ("sdxl-base", "koala-1b", "koala-1b", 1_161_184_324),
    ("sdxl-base", "koala-700m", "koala-700m", 782_822_724),
    ("sdxl-base", "ssd-1b", "ssd-1b", 1_331_334_404),
    ("sdxl-base", "vega", "segmind-vega", 745_225_604),
    ("sd-v1-5", "sdxs", "sdxs-512-dreamshaper", 315_746_244),
    ("sd-v2-1-base", "sdxs-0.9", "sdxs-512-0.9", 328_177_284),
]


def skeleton(name):
    return resolve(ModelOptions(source=name, weights="random"), Path()).skeleton("unet")


def test_every_preset_is_compared_with_a_published_network():
    assert {preset for _, preset, _, _ in PUBLISHED} == set(PRESETS)


@pytest.mark.parametrize(("source", "preset", "published", "parameters"), PUBLISHED)
def test_the_published_network(source, preset, published, parameters):
    before = skeleton(source)
    found = Prune(preset=preset).config(architectures.configs(source)["unet"])
    made = cut(Prune(preset=preset), before)
    assert sum(value.numel() for value in made.parameters()) == parameters
    want = skeleton(published)
    assert {name: value.shape for name, value in made.state_dict().items()} == {n: v.shape for n, v in want.state_dict().items()}
    for name, value in want.config.items():
        if not name.startswith("_") and name != "transformer_layers_per_block":  # its entries without attentions mean nothing
            assert made.config[name] == value, name
    with torch.device("meta"):
        assert sum(value.numel() for value in UNet2DConditionModel.from_config(found).parameters()) == parameters


def test_layers_are_shares_of_what_the_model_has():
    config = UNet2DConditionModel.load_config(Path(__file__).parents[3] / "recipes" / "demo" / "unet")
    depths = {
        preset: Prune(preset=preset).config(config)["transformer_layers_per_block"] for preset in ("koala-1b", "koala-700m")
    }
    assert depths == {"koala-1b": [1, 1, 2], "koala-700m": 1}
    with torch.device("meta"):
        whole, small = (
            sum(value.numel() for value in UNet2DConditionModel.from_config(each).parameters())
            for each in (config, Prune(preset="koala-700m").config(config))
        )
    assert small / whole <= 0.45


@pytest.mark.parametrize(("source", "preset"), [(source, preset) for source, preset, _, _ in PUBLISHED])
def test_a_cut_can_be_written_as_a_block_map(source, preset):
    config = architectures.configs(source)["unet"]
    whole = blocks.whole(config)
    made = PRESETS[preset](preset, whole)
    said = blocks.blocks(made, whole)
    assert blocks.chosen(whole, said) == made
    written = {name: block and block.model_dump(mode="json", exclude_defaults=True) for name, block in said.items()}
    assert Prune(blocks=written).config(config) == Prune(preset=preset).config(config)


def test_a_share_keeps_the_first_layers_to_the_nearest_and_at_least_one():
    config = {**models.unet_xl(transformer_layers_per_block=[1, 1, 5], layers_per_block=2).config}
    whole = blocks.whole(config)
    made = PRESETS["koala-1b"]("koala-1b", whole)
    assert made.down[-1].layers == ((0, 1, 2),)  # 0.6 of 5
    assert PRESETS["koala-700m"]("x", whole).down[-1].layers == ((0, 1),)  # a half of 5, downwards
    assert PRESETS["vega"]("x", whole).down[-1].layers == ((0,), (0,))  # 0.2 of 5
    assert made.mid.layers == ((0, 1, 2),)
    assert PRESETS["koala-700m"]("x", whole).mid is None
    assert PRESETS["ssd-1b"]("x", whole).mid.layers == ()
    assert PRESETS["ssd-1b"]("x", whole).up[0].depths == [2, 2, 5]


@pytest.mark.parametrize(
    ("preset", "changes", "told"),
    [
        ("bk-sdm-base", {"layers_per_block": 1}, r"halves blocks of 2 resnets, and this UNet's down blocks have \[1, 1, 1\]"),
        ("ssd-1b", {"layers_per_block": 1, "transformer_layers_per_block": 2}, "3 pairs, and this UNet's have"),
        ("vega", {"layers_per_block": 2, "transformer_layers_per_block": 1}, "1 transformer layers there"),
    ],
)
def test_a_network_that_a_preset_does_not_fit(preset, changes, told):
    whole = blocks.whole({**models.unet_xl(**changes).config})
    with pytest.raises(UnsupportedError, match=rf"prune\.preset: {preset} .*{told}"):
        PRESETS[preset](preset, whole)


def test_one_stage_cannot_lose_its_innermost():
    one = blocks.Cut((blocks.UNetStage(0, (0, 1)),), None, (blocks.UNetStage(0, (0, 1, 2)),))
    with pytest.raises(UnsupportedError, match="bk-sdm-tiny drops the innermost stage, and this UNet has one stage"):
        PRESETS["bk-sdm-tiny"]("bk-sdm-tiny", one)


#: Depth, percent of SD 1.5's UNet that go as the paper's code has it, what goes in diffusers' names, parameters that stay.
_INNER = ("down_blocks.3", "mid_block", "up_blocks.0")
SKIPPED = [
    (12, 11.29, ("mid_block",), 762_482_884),
    (11, 20.63, ("mid_block", "down_blocks.3.resnets.1", "up_blocks.0.resnets.0"), 682_179_524),
    (10, 29.98, ("mid_block", "down_blocks.3", "up_blocks.0.resnets.0", "up_blocks.0.resnets.1"), 601_876_164),
    (9, 39.13, (*_INNER, "down_blocks.2.downsamplers"), 523_217_604),
    (8, 56.56, (*_INNER, "down_blocks.2.downsamplers", "down_blocks.2.*.1", "up_blocks.1.*.0"), 373_392_324),
    (7, 73.23, (*_INNER, "down_blocks.2", "up_blocks.1.*.0", "up_blocks.1.*.1"), 230_120_644),
    (6, 84.18, (*_INNER, "down_blocks.2", "down_blocks.1.downsamplers", "up_blocks.1"), 135_954_244),
]


@pytest.fixture(scope="module")
def sd():
    return skeleton("sd-v1-5")


@pytest.mark.parametrize(("depth", "share", "gone", "parameters"), SKIPPED)
def test_depth_skip_of_sd(sd, depth, share, gone, parameters):
    names = [re.compile(name.replace(".", r"\.").replace(r"\.*", r"\.(resnets|attentions)") + r"\.") for name in gone]
    sizes = {name: value.numel() for name, value in sd.named_parameters()}
    stays = sum(size for name, size in sizes.items() if not any(pattern.match(name) for pattern in names))
    prune = Prune(preset="depth-skip", depth=depth)
    made = weights.skeleton("diffusers", "DepthSkipUNet", prune.config(sd.config))
    assert sum(value.numel() for value in made.parameters()) == stays == parameters
    assert round(100 * (1 - stays / sum(sizes.values())), 2) == share
    moved = prune.moved(sd.config, {})
    assert {came_from(name, moved) for name in made.state_dict()} == {
        name for name in sizes if not any(pattern.match(name) for pattern in names)
    }


#: The x4 upscaler's UNet as it is published: 473,398,020 parameters, of which its class embedding stays.
UPSCALER = {
    "in_channels": 7, "out_channels": 4, "block_out_channels": [256, 512, 512, 1024], "cross_attention_dim": 1024,
    "num_class_embeds": 1000, "only_cross_attention": [True, True, True, False], "use_linear_projection": True,
    "down_block_types": ["DownBlock2D", *["CrossAttnDownBlock2D"] * 3],
    "up_block_types": [*["CrossAttnUpBlock2D"] * 3, "UpBlock2D"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("depth", "share", "gone", "parameters"),
    [
        (12, 13.30, ("mid_block",), 410_447_620),
        (11, 33.91, ("mid_block", "down_blocks.3.*.1", "up_blocks.0.*.0"), 312_869_636),
        (10, 53.64, ("mid_block", "down_blocks.3", "up_blocks.0.*.0", "up_blocks.0.*.1"), 219_485_956),
        (9, 66.55, (*_INNER, "down_blocks.2.downsamplers"), 158_374_148),
        (8, 72.81, (*_INNER, "down_blocks.2.downsamplers", "down_blocks.2.*.1", "up_blocks.1.*.0"), 128_720_644),
        (7, 78.52, (*_INNER, "down_blocks.2", "up_blocks.1.*.0", "up_blocks.1.*.1"), 101_689_604),
        (6, 82.68, (*_INNER, "down_blocks.2", "down_blocks.1.downsamplers", "up_blocks.1"), 82_011_908),
    ],
)
def test_depth_skip_of_the_upscaler(depth, share, gone, parameters):
    whole = weights.skeleton("diffusers", "UNet2DConditionModel", {"_class_name": "UNet2DConditionModel", **UPSCALER})
    assert sum(value.numel() for value in whole.parameters()) == 473_398_020
    test_depth_skip_of_sd(whole, depth, share, gone, parameters)


@pytest.mark.parametrize(("depth", "channels"), [(12, 1280), (9, 1280), (6, 1280), (5, 640), (3, 640)])
def test_depth_skip_begins_with_zeros_in_the_channels_that_were_there(sd, depth, channels):
    made = weights.skeleton("diffusers", "DepthSkipUNet", Prune(preset="depth-skip", depth=depth).config(sd.config))
    skip = [320, 320, 320, 320, 640, 640, 640, 1280, 1280, 1280, 1280, 1280][depth - 1]
    assert made.up_blocks[0].resnets[0].in_channels - skip == channels


@pytest.mark.parametrize("depth", [1, 2, 13])
def test_depth_skip_of_more_or_fewer_blocks_than_there_are(sd, depth):
    with pytest.raises(UnsupportedError, match=rf"prune\.depth: {depth}, .* has 12 input blocks, .* has 3; give 3 to 12"):
        depth_skip(blocks.whole(sd.config), depth)


@pytest.mark.parametrize(("source", "most"), [("sdxl-base", 9), ("instruct-pix2pix", 12)])
def test_depth_skip_of_other_unets(source, most):
    before = skeleton(source)
    for depth in (most, most - 3):
        made = cut(Prune(preset="depth-skip", depth=depth), before)
        assert made.conv_in.weight.shape == before.conv_in.weight.shape
        assert made.mid_block is None

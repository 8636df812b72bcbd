"""A cut is said in blocks and written as a config, or refused with the block's name."""

import pytest
from pydantic import ValidationError

from engines.errors import UnsupportedError
from exporter.models import architectures
from exporter.passes.prune import Prune
from exporter.pruning import blocks
from exporter.pruning.blocks import Block, Cut, UNetStage

SD, XL = architectures.configs("sd-v1-5")["unet"], architectures.configs("sdxl-base")["unet"]


@pytest.mark.parametrize(
    ("config", "options", "told"),
    [
        (SD, {"preset": "koala-700m"}, "0 transformer layers there: it is a cut of SDXL"),
        (XL, {"preset": "bk-sdm-tiny"}, "here 1280 and 640"),
        (XL, {"preset": "sdxs-0.9"}, "this UNet has none"),
        (architectures.configs("koala-1b")["unet"], {"preset": "koala-700m"}, r"this UNet's down blocks have \[1, 1, 1\]"),
        (architectures.configs("koala-1b")["unet"], {"preset": "ssd-1b"}, r"3 pairs, and this UNet's have \[2, 2, 2\]"),
        (SD, {"blocks": {"up_block.1": {}}}, "did you mean 'up_blocks.1'"),
        (SD, {"blocks": {"down_blocks.4": None}}, "has no such block"),
        (SD, {"blocks": {"down_blocks.0": {"pairs": [2]}}}, "there is no pair 2"),
        (SD, {"blocks": {"down_blocks.0": {"pairs": [0]}}}, "an up block has one more than its down block"),
        (SD, {"blocks": {"down_blocks.3": {"layers": [0]}}}, "no attentions"),
        (SD, {"blocks": {"down_blocks.0": {"layers": [1]}}}, r"must be at least one of \[0\]"),
        (SD, {"blocks": {"down_blocks.0": {"layers": []}}}, r"must be at least one of \[0\]"),
        (SD, {"blocks": {"down_blocks.0": {"layers": [[0]]}}}, "1 lists for 2 attentions"),
        (SD, {"blocks": {"down_blocks.0": None, "up_blocks.3": None}}, "only the innermost"),
        (SD, {"blocks": {"down_blocks.3": None}}, "on both sides or on neither"),
        (SD, {"blocks": {"down_blocks.3": None, "up_blocks.0": None}}, "the mid block goes too"),
        (SD, {"blocks": {"down_blocks.0": {"attention": "cross"}}}, "lose their self-attention together"),
        (XL, {"blocks": {"mid_block": {"layers": [0]}}}, "1 transformer layers and down_blocks.2's first attention 10"),
        (SD | {"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}, {"preset": "bk-sdm-base"}, "has UNetMidBlock2DSimple"),
    ],
)
def test_what_does_not_fit_is_refused(config, options, told):
    with pytest.raises(UnsupportedError, match=told):
        Prune(**options).config(config)


CONFIG = {
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [8, 16],
    "layers_per_block": [1, 2],
    "transformer_layers_per_block": [1, 3],
    "_name_or_path": "somewhere",
}
WHOLE = Cut(
    (UNetStage(0, (0,)), UNetStage(1, (0, 1), ((0, 1, 2), (0, 1, 2)))),
    UNetStage(0, (0,), ((0, 1, 2),)),
    (UNetStage(0, (0, 1, 2), ((0, 1, 2),) * 3), UNetStage(1, (0, 1))),
)


def test_the_whole_of_a_config():
    assert blocks.whole(CONFIG) == WHOLE
    assert WHOLE.down[1].depths == [3, 3]
    assert blocks.whole({}).down[-1] == UNetStage(3, (0, 1)), "what a config leaves out is diffusers' default"
    assert blocks.whole({**CONFIG, "mid_block_type": None}).mid is None
    assert blocks.whole({**CONFIG, "mid_block_type": "UNetMidBlock2D"}).mid == UNetStage(0, (0,))
    crossed = blocks.whole({**CONFIG, "only_cross_attention": True})
    assert crossed.down[1] == UNetStage(1, (0, 1), ((0, 1, 2),) * 2, cross_only=True, was_full=False)
    assert not crossed.down[0].cross_only  # it has no attentions
    reverse = {**CONFIG, "reverse_transformer_layers_per_block": [[1, 2, 3], 1]}
    assert blocks.whole(reverse).up[0].depths == [1, 2, 3]


def test_the_whole_is_written_as_it_was():
    found = blocks.config(CONFIG, WHOLE)
    for name in ("down_block_types", "up_block_types", "block_out_channels", "layers_per_block", "transformer_layers_per_block"):
        assert found[name] == CONFIG[name], name
    assert found["reverse_transformer_layers_per_block"] is None
    assert "_name_or_path" not in found


def test_what_is_left_of_a_block():
    made = blocks.chosen(WHOLE, {
        "down_blocks.1": Block(pairs=(1,), layers=(0, 2)),
        "up_blocks.0": Block(pairs=(0, 2), layers=((1,), (0, 1)), attention="cross"),
        "mid_block": None,
    })  # fmt: skip
    assert made.down == (WHOLE.down[0], UNetStage(1, (1,), ((0, 2),)))
    assert made.up == (UNetStage(0, (0, 2), ((1,), (0, 1)), cross_only=True), WHOLE.up[1])
    assert made.mid is None
    assert blocks.chosen(WHOLE, {}) == WHOLE
    assert blocks.chosen(WHOLE, {"up_blocks.0": Block(attention="none")}).up[0] == UNetStage(0, (0, 1, 2))
    gone = blocks.chosen(WHOLE, {"down_blocks.1": None, "up_blocks.0": None, "mid_block": None})
    assert gone == Cut(WHOLE.down[:1], None, WHOLE.up[1:])
    assert blocks.blocks(gone, WHOLE) == {"down_blocks.1": None, "up_blocks.0": None, "mid_block": None}


def test_a_shorter_config_by_hand():
    found = blocks.config(CONFIG, Cut(
        (UNetStage(0, (0,)), UNetStage(1, (1,), ((0, 2),))), UNetStage(0, (0,)),
        (UNetStage(0, (0, 2), ((1,), (0, 1))), WHOLE.up[1]),
    ))  # fmt: skip
    assert found["layers_per_block"] == 1
    assert found["mid_block_type"] == "UNetMidBlock2D"
    assert found["transformer_layers_per_block"] == [1, 2]
    assert found["reverse_transformer_layers_per_block"] == [[1, 2], 1]
    one = blocks.config({**CONFIG, "block_out_channels": [8, 8]}, Cut(WHOLE.down[:1], None, WHOLE.up[1:]))
    assert (one["block_out_channels"], one["down_block_types"], one["mid_block_type"]) == ([8], ["DownBlock2D"], None)


def test_weights_keep_the_names_that_they_had():
    moved = blocks.origin(Cut(
        (UNetStage(0, (0,)), UNetStage(1, (1,), ((2,),))), None,
        (UNetStage(0, (0, 2), ((0,), (1,)), cross_only=True), WHOLE.up[1])
    ))  # fmt: skip
    assert moved["down_blocks.1.resnets.0."] == "down_blocks.1.resnets.1."
    assert moved["down_blocks.1.attentions.0.transformer_blocks.0."] == "down_blocks.1.attentions.1.transformer_blocks.2."
    there = "up_blocks.0.attentions.2.transformer_blocks.1."
    assert moved["up_blocks.0.attentions.1.transformer_blocks.0.attn1."] == f"{there}attn2."
    assert moved["up_blocks.0.attentions.1.transformer_blocks.0.norm1."] == f"{there}norm2."
    assert not any(name.startswith("mid_block") or ("attn1" in name and "down" in name) for name in moved)


@pytest.mark.parametrize("pairs", [(), (1, 0), (0, 0)])
def test_pairs_rise(pairs):
    with pytest.raises(ValidationError, match="must name at least one pair, rising, none twice"):
        Block(pairs=pairs)


@pytest.mark.parametrize(
    ("changes", "strange"),
    [
        ({"down_block_types": ["AttnDownBlock2D", "DownBlock2D"]}, "AttnDownBlock2D"),
        ({"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}, "UNetMidBlock2DSimpleCrossAttn"),
        ({"dual_cross_attention": True}, "dual_cross_attention"),
    ],
)
def test_blocks_that_nobody_knows_are_named_by_who_refuses(changes, strange):
    with pytest.raises(UnsupportedError, match=f"distill knows the blocks DownBlock2D, .*and this UNet has {strange}"):
        blocks.whole({**CONFIG, **changes}, "distill")

"""A search's next steps: smaller cuts by the names of the source's pieces."""

from engines.errors import UnsupportedError
from exporter.models import architectures
from exporter.pruning import blocks
from exporter.pruning.blocks import Cut, UNetStage
from exporter.pruning.moves import moves
from tests.exporter import models


def test_moves_are_smaller_cuts_that_diffusers_can_say():
    for config in (models.unet_xl(layers_per_block=2, transformer_layers_per_block=[1, 1, 3]).config,
                   architectures.configs("sd-v1-5")["unet"]):  # fmt: skip
        whole = blocks.whole(config)
        found = list(moves(whole))
        assert len({name for name, _ in found}) == len(found)
        said = [name for name, cut in found if _said(config, cut)]
        assert any(name == "mid_block" for name in said)
        assert any(": pair" in name for name in said)
        assert any("attentions" in name for name in said)
    assert any("layer 2, mid_block: layer 0" in name for name, _ in moves(blocks.whole(models.unet_xl(
        layers_per_block=2, transformer_layers_per_block=[1, 1, 3]).config)))  # fmt: skip


def _said(config, cut):
    try:
        return blocks.config(config, cut)
    except UnsupportedError:
        return None


SMALL = Cut(
    (UNetStage(0, (0,)), UNetStage(1, (0, 1), ((0,), (0, 1)))),
    UNetStage(0, (0,), ((0,),)),
    (UNetStage(0, (0, 1, 2)), UNetStage(1, (0, 2), ((0,), (0,)))),
)


def test_every_step_of_a_small_cut_by_hand():
    found = dict(moves(SMALL))
    assert sorted(found) == sorted([
        "mid_block", "mid_block: attention",
        *(f"down_blocks.1: pair {here}, up_blocks.0: pair {there}" for here in (0, 1) for there in (0, 1, 2)),
        "down_blocks.1: attentions", "up_blocks.1: attentions", "down_blocks.1, up_blocks.0",
        "down_blocks.1.attentions.1: layer 0", "down_blocks.1.attentions.1: layer 1",
    ])  # fmt: skip
    assert found["mid_block"] == Cut(SMALL.down, None, SMALL.up)
    assert found["mid_block: attention"].mid == UNetStage(0, (0,))
    assert found["down_blocks.1: pair 0, up_blocks.0: pair 2"] == Cut(
        (SMALL.down[0], UNetStage(1, (1,), ((0, 1),))), SMALL.mid, (UNetStage(0, (0, 1)), SMALL.up[1])
    )
    assert found["down_blocks.1, up_blocks.0"] == Cut(SMALL.down[:1], None, SMALL.up[1:])
    assert found["down_blocks.1.attentions.1: layer 0"].down[1] == UNetStage(1, (0, 1), ((0,), (1,)))


def test_the_last_attention_and_the_last_stage_stay():
    one = Cut((UNetStage(0, (0,)),), None, (UNetStage(0, (0, 1), ((0,), (0,))),))
    assert list(moves(one)) == []  # its attentions would be the last, and there is one stage
    lone = Cut((UNetStage(0, (0, 1)),), None, (UNetStage(0, (0, 1, 2), ((0,), (0, 1), (0,))),))
    assert all(any(stage.layers for stage in (*cut.down, *cut.up)) for _, cut in moves(lone))
    assert {name for name, _ in moves(lone)} >= {"up_blocks.0.attentions.1: layer 1"}


def test_the_mid_block_s_layers_go_with_those_of_the_last_down_block():
    tied = Cut((UNetStage(0, (0,), ((0, 1),)),), UNetStage(0, (0,), ((0, 1),)), (UNetStage(0, (0, 1)),))
    names = [name for name, _ in moves(tied) if "layer" in name]
    assert names == [f"down_blocks.0.attentions.0: layer {here}, mid_block: layer {there}" for here in (0, 1) for there in (0, 1)]
    free = Cut((UNetStage(0, (0,)),), UNetStage(0, (0,), ((0, 1),)), (UNetStage(0, (0, 1), ((0,), (0,))),))
    shorter = dict(moves(free))
    assert shorter["mid_block: layer 0"].mid == UNetStage(0, (0,), ((1,),))

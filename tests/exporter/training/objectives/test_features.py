"""Students learn from the right modules of their teachers."""

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn
from torch.utils.checkpoint import checkpoint

from exporter.models.resolve import resolve
from exporter.passes.prune import Prune
from exporter.recipe.schema import ModelOptions
from exporter.training.objectives import features
from tests.exporter import models

KINDS = ["last_of_stage", "self_attention", "cross_attention", "resnet", "feed_forward", "layers"]


def skeleton(name, prune=None):
    before = resolve(ModelOptions(source=name, weights="random"), Path()).skeleton("unet")
    if prune is None:
        return before
    with torch.device("meta"):
        return UNet2DConditionModel.from_config(prune.config(before.config))


def paired(source, preset, kind):
    prune = Prune(preset=preset)
    teacher = skeleton(source)
    student = skeleton(source, prune)
    found = features.pairs(kind, student, teacher, prune.moved(teacher.config, {}))
    assert found
    assert {name for pair in found for name in pair[:1]} <= {name for name, _ in student.named_modules()}
    assert {name for pair in found for name in pair[1:]} <= {name for name, _ in teacher.named_modules()}
    return found


@pytest.mark.parametrize("size", ["base", "small"])
def test_bk_sdm_compares_what_every_block_gives_on(size):
    names = [f"{side}_blocks.{index}" for side in ("down", "up") for index in range(4)]
    assert paired("sd-v1-5", f"bk-sdm-{size}", "last_of_stage") == [(name, name) for name in names]


def test_bk_sdm_tiny_as_published():
    # kd_train_text_to_image.py of BK-SDM: the last down stage has lost its sampler, the up stages have moved.
    assert paired("sd-v1-5", "bk-sdm-tiny", "last_of_stage") == [
        ("down_blocks.0", "down_blocks.0"),
        ("down_blocks.1", "down_blocks.1"),
        ("down_blocks.2.attentions.0.proj_out", "down_blocks.2.attentions.1.proj_out"),
        ("up_blocks.0", "up_blocks.1"),
        ("up_blocks.1", "up_blocks.2"),
        ("up_blocks.2", "up_blocks.3"),
    ]


@pytest.mark.parametrize(("preset", "depth", "mid"), [("koala-700m", 5, False), ("koala-1b", 6, True)])
def test_koala_compares_self_attentions_of_the_layers_that_stayed(preset, depth, mid):
    found = dict(paired("sdxl-base", preset, "self_attention"))
    want = {}
    for block, pairs, layers in (
        ("down_blocks.1", {0: 0}, 2),
        ("down_blocks.2", {0: 0}, depth),
        ("mid_block", {0: 0} if mid else {}, depth),
        ("up_blocks.0", {0: 0, 1: 2}, depth),
        ("up_blocks.1", {0: 0, 1: 2}, 2),
    ):
        for new, old in pairs.items():
            for layer in range(layers):
                inside = f"transformer_blocks.{layer}.attn1"
                want[f"{block}.attentions.{new}.{inside}"] = f"{block}.attentions.{old}.{inside}"
    assert found == want


def test_the_layer_level_loss_compares_every_resnet_and_attention_that_stayed():
    found = paired("sdxl-base", "ssd-1b", "layers")
    names = [name for name, _ in found]
    assert names == [*dict.fromkeys(names)]
    # All resnets of SDXL but one of the middle, and the attentions of which layers stayed.
    assert [name for name in names if ".resnets." in name] == [
        *(f"down_blocks.{block}.resnets.{index}" for block in range(3) for index in range(2)),
        *(f"up_blocks.{block}.resnets.{index}" for block in range(3) for index in range(3)),
        "mid_block.resnets.0",
    ]
    attentions = {name: source for name, source in found if ".attentions." in name}
    assert attentions
    assert all(name == source for name, source in attentions.items())


def test_an_attention_that_became_one_to_the_text_learns_from_none():
    found = paired("sd-v2-1-base", "sdxs-0.9", "self_attention")
    assert not [name for name, _ in found if name.startswith(("down_blocks.0", "up_blocks.2"))]


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_have_one_shape_and_nothing_is_lost_on_an_untouched_network(kind):
    network = models.unet()
    pairs = features.pairs(kind, network, network, {})
    watches = [features.Watch(network, [pair[side] for pair in pairs]) for side in (0, 1)]
    for watch in watches:
        watch.arm()
    network(torch.randn(1, 4, 16, 16), torch.tensor(5), torch.randn(1, 7, 16))
    for own, other in zip(*(watch.take() for watch in watches), strict=True):
        assert torch.equal(own, other)
        assert own.std() > 0


class Called(nn.Module):
    """One module that gives a tensor, one that gives a tuple."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Identity(), Pair()

    def forward(self, x):
        return self.two(self.one(x))[0]


class Pair(nn.Module):
    def forward(self, x):
        return x * 2, "more"


def test_a_watch_keeps_what_was_given_out_between_arm_and_take():
    network = Called()
    watch = features.Watch(network, ["two", "one"])
    network(torch.tensor(1.0))
    watch.arm()
    network(torch.tensor(3.0))
    assert [float(each) for each in watch.take()] == [6.0, 3.0]
    network(torch.tensor(5.0))
    with pytest.raises(KeyError):
        watch.take()
    watch.arm()
    watch.end()
    network(torch.tensor(7.0))
    assert not watch._seen


def test_what_checkpointing_calls_again_is_not_kept():
    network, x = Called(), torch.tensor(1.0, requires_grad=True)
    watch = features.Watch(network, ["one"])
    watch.arm()
    out = checkpoint(network, x, use_reentrant=False)
    (seen,) = watch.take()
    out.backward()
    assert not watch._seen
    assert float(seen.detach()) == 1

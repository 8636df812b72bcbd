"""The names that are told from a config are those of the modules that diffusers makes of it."""

import pytest
from diffusers.models.attention_processor import Attention

from exporter.families.unets import self_attentions
from tests.exporter import models

CONFIGS = {
    "sd": {},
    "deep": {"layers_per_block": 2, "transformer_layers_per_block": [1, 2, 1]},
    "no mid": {"mid_block_type": None},
    "text alone outside": {"only_cross_attention": [True, False, False]},
    "plain mid": {"mid_block_type": "UNetMidBlock2D"},
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_names_are_those_of_diffusers_modules(kind):
    unet = models.unet(**CONFIGS[kind])
    there = [name for name, module in unet.named_modules() if isinstance(module, Attention) and not module.is_cross_attention]
    assert sorted(self_attentions.names(unet.config)) == sorted(there)
    assert there


def test_names_of_what_a_config_leaves_out_are_stable_diffusions():
    found = self_attentions.names({})
    assert len(found) == 6 + 1 + 9
    assert found[6] == "mid_block.attentions.0.transformer_blocks.0.attn1"


def test_layers_are_found_as_diffusers_finds_them():
    name = "up_blocks.1.attentions.0.transformer_blocks.0.attn1"
    assert self_attentions.matches("up", name)
    assert self_attentions.matches(r"up_blocks\.(0|1)", name)
    assert not self_attentions.matches("mid", name)
    assert not self_attentions.matches("blocks.1", "single_blocks.1")  # a number that stands for itself alone
    assert self_attentions.matches("blocks.1", "single_blocks.1.attn")


def test_what_a_network_has_not_is_told_with_what_it_has():
    assert self_attentions.problem({}, ("mid", "up_blocks.1")) == ""
    told = self_attentions.problem({"mid_block_type": None}, ("mid",))
    assert told.startswith("'mid' names no self-attention of this UNet, which has some in down_blocks.0, down_blocks.1")
    assert "such as down_blocks.0.attentions.0" in told
    nothing = {"down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"], "mid_block_type": None}
    assert "leave pag out" in self_attentions.problem(nothing, ("mid",))
    assert self_attentions.problem({"down_block_types": ["SomeBlock"]}, ("mid",)) == ""  # the build says, once it has the network

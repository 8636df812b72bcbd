"""Whose weight a name is, what of it, and how layers are spelled."""

import pytest

from engines.lora import spelling

CONFIG = {"down_block_types": [""] * 3, "layers_per_block": 1}


@pytest.mark.parametrize(
    ("name", "component"),
    [
        ("unet.x", "unet"),
        ("lora_unet_x", "unet"),
        ("model.diffusion_model.x", "unet"),
        ("down_blocks.0.x", "unet"),
        ("base_model.model.mid_block.x", "unet"),
        ("lora_te1_x", "text_encoder"),
        ("text_encoders.clip_g.transformer.x", "text_encoder_2"),
        ("text_model.x", "text_encoder"),
        ("nobody.x", ""),
    ],
)
def test_whose_it_is(name, component):
    assert spelling.owner(name) == component


@pytest.mark.parametrize(
    ("end", "what"),
    [
        (".lora_A.weight", "down"),
        (".lora_up.weight", "up"),
        (".alpha", "alpha"),
        (".hada_w1_a", "hada_w1_a"),
        (".lora_mid.weight", "mid"),
    ],
)
def test_what_of_it(end, what):
    assert spelling.split(f"unet.a.to_q{end}") == ("unet.a.to_q", what)
    assert spelling.split("unet.a.to_q.weight") is None


def test_both_layouts_and_every_beginning():
    bare = spelling.bares("unet", ["down_blocks.1.resnets.0.conv1"], CONFIG)
    assert bare == {"down_blocks.1.resnets.0.conv1": ("down_blocks.1.resnets.0.conv1", "input_blocks.3.0.in_layers.2")}
    names = list(spelling.prefixed("unet", next(iter(bare.values()))))
    assert {"lora_unet_input_blocks_3_0_in_layers_2", "unet.down_blocks.1.resnets.0.conv1"} <= set(names)
    assert spelling.bares("transformer", ["blocks.0"], {}) == {"blocks.0": ("blocks.0",)}
    found = spelling.spellings("text_encoder", ["text_model.encoder.layers.0.self_attn.q_proj"], {})
    assert found["lora_te_text_model_encoder_layers_0_self_attn_q_proj"] == "text_model.encoder.layers.0.self_attn.q_proj"

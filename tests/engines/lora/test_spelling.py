"""Every spelling of a layer by hand: whose it is, what its end says, and which layer it stands for."""

import pytest

from engines.lora import spelling


@pytest.mark.parametrize(
    ("name", "component"),
    [
        ("unet.down_blocks.0.x", "unet"),
        ("lora_unet_down_blocks_0_x", "unet"),
        ("lycoris_unet_x", "unet"),
        ("lycoris_down_blocks_0_x", "unet"),
        ("lycoris_text_model_encoder_layers_0_x", "text_encoder"),
        ("diffusion_model.input_blocks.1.x", "unet"),
        ("down_blocks.1.attentions.0.x.lora_A.weight", "unet"),
        ("time_embedding.linear_1.x", "unet"),
        ("base_model.model.up_blocks.0.x", "unet"),
        ("lora_te_text_model_x", "text_encoder"),
        ("lora_te1_x", "text_encoder"),
        ("clip_l.transformer.x", "text_encoder"),
        ("text_model.encoder.layers.0.x", "text_encoder"),
        ("base_model.model.encoder.layers.0.x", "text_encoder"),
        ("text_encoder_2.text_model.x", "text_encoder_2"),
        ("lora_te2_x", "text_encoder_2"),
        ("text_encoders.clip_g.transformer.x", "text_encoder_2"),
        ("transformer.blocks.0.x", ""),
        ("lora_te3_x", ""),
        ("conv_input.x", ""),
        ("vae.encoder.layers.0.x", ""),
    ],
)
def test_whose_a_weight_is(name, component):
    assert spelling.owner(name) == component


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a.b.lora_down.weight", ("a.b", "down")),
        ("a.b.lora_up.weight", ("a.b", "up")),
        ("a.lora_mid.weight", ("a", "mid")),
        ("a.lora_down", ("a", "down")),
        ("base_model.model.a.lora_A.default.weight", ("a", "down")),
        ("a.lora_A.weight", ("a", "down")),
        ("a.lora_B.weight", ("a", "up")),
        ("a.lora_B.bias", ("a", "up_bias")),
        ("a.lora_B.default.bias", ("a", "up_bias")),
        ("a.scalar", ("a", "scalar")),
        ("a.lora_magnitude_vector", ("a", "magnitude")),
        ("a.lora_magnitude_vector.default.weight", ("a", "magnitude")),
        ("a.lora.down.weight", ("a", "down")),
        ("a.lora_linear_layer.up.weight", ("a", "up")),
        ("attn1.processor.to_q_lora.down.weight", ("attn1.to_q", "down")),
        ("attn1.to_k_lora.up.weight", ("attn1.to_k", "up")),
        ("attn1.processor.to_out_lora.up.weight", ("attn1.to_out.0", "up")),
        ("a.alpha", ("a", "alpha")),
        ("a.dora_scale", ("a", "dora_scale")),
        ("a.diff_b", ("a", "diff_b")),
        ("a.hada_w1_a", ("a", "hada_w1_a")),
        ("a.hada_t2", ("a", "hada_t2")),
        ("a.lokr_w2", ("a", "lokr_w2")),
        ("a.lokr_w1_b", ("a", "lokr_w1_b")),
        ("a.lokr_t2", ("a", "lokr_t2")),
        ("a.hada_w3_a", None),
        ("a.lokr_t1", None),
        ("a.weight", None),
        ("lora_down.weight", None),  # of no layer
        ("a.lora_C.weight", None),
    ],
)
def test_what_the_end_of_a_name_says(name, parts):
    assert spelling.split(name) == parts


@pytest.mark.parametrize(
    ("names", "called"),
    [
        (["a.lora_up.weight"], ""),
        ([], ""),
        (["a.oft_blocks"], "OFT"),
        (["a.lora_up.weight", "a.on_input"], "(IA)³"),
        (["a.set_weight"], "whole weights to put in place"),
        (["a.reshape_weight"], "layers of another shape"),
        (["x.lora_embedding_A"], "LoRA of embeddings"),
        (["x.a1.weight"], "GLoRA"),
    ],
)
def test_other_formats_are_called_by_their_name(names, called):
    assert spelling.other_format(names) == called


def test_a_text_encoder_has_two_names_a_layer_and_older_ones_of_its_projections():
    layer = "text_model.encoder.layers.0.self_attn.q_proj"
    found = spelling.spellings("text_encoder", [layer], {})
    bare = "encoder.layers.0.self_attn.q_proj"
    for name in (
        bare, layer, layer.replace("q_proj", "to_q"), f"lora_te_{layer.replace('.', '_')}", f"lora_te1_{bare.replace('.', '_')}",
        f"text_encoders.clip_l.transformer.{layer}", f"text_encoder.{bare}",
    ):  # fmt: skip
        assert found.pop(name) == layer
    assert not [name for name in found if "te2" in name or "clip_g" in name]
    out = spelling.spellings("text_encoder_2", ["encoder.layers.1.self_attn.out_proj", "encoder.layers.1.mlp.fc1"], {})
    assert out["lora_te2_text_model_encoder_layers_1_self_attn_to_out_0"] == "encoder.layers.1.self_attn.out_proj"
    assert out["text_encoder_2.text_model.encoder.layers.1.mlp.fc1"] == "encoder.layers.1.mlp.fc1"
    assert "text_model.encoder.layers.1.mlp.to_out.0" not in out


#: Three stages of two layers: input blocks 1 2 | 3, 4 5 | 6, 7 8 with samplers between; output blocks 0 1 2, 3 4 5, 6 7 8.
LAYERS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "down_blocks.0.resnets.0.conv1": "input_blocks.1.0.in_layers.2",
    "down_blocks.0.resnets.1.norm2": "input_blocks.2.0.out_layers.0",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.3.0.op",
    "down_blocks.1.resnets.0.conv_shortcut": "input_blocks.4.0.skip_connection",
    "down_blocks.1.attentions.1.proj_in": "input_blocks.5.1.proj_in",
    "down_blocks.2.resnets.1.time_emb_proj": "input_blocks.8.0.emb_layers.1",
    "mid_block.resnets.0.norm1": "middle_block.0.in_layers.0",
    "mid_block.attentions.0.proj_out": "middle_block.1.proj_out",
    "mid_block.resnets.1.conv2": "middle_block.2.out_layers.3",
    "up_blocks.0.resnets.2.conv1": "output_blocks.2.0.in_layers.2",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.2.1.conv",  # no attention before it
    "up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q": "output_blocks.3.1.transformer_blocks.0.attn1.to_q",
    "up_blocks.1.upsamplers.0.conv": "output_blocks.5.2.conv",  # behind its attention
    "up_blocks.2.resnets.0.conv1": "output_blocks.6.0.in_layers.2",
}
CONFIG = {"down_block_types": ["", "", ""], "layers_per_block": 2}


@pytest.mark.parametrize("config", [CONFIG, {"down_block_types": ["", "", ""]}, CONFIG | {"layers_per_block": [2, 2, 2]}])
def test_a_unet_s_layers_have_their_original_names(config):
    found = spelling.spellings("unet", LAYERS, config)
    assert {layer: [name for name in (original, layer) if found[name] == layer] for layer, original in LAYERS.items()} == {
        layer: [original, layer] for layer, original in LAYERS.items()
    }
    assert found["lora_unet_input_blocks_5_1_proj_in"] == "down_blocks.1.attentions.1.proj_in"
    assert found["lycoris_unet_down_blocks_1_attentions_1_proj_in"] == "down_blocks.1.attentions.1.proj_in"
    assert found["model.diffusion_model.out.2"] == "conv_out"
    assert found["unet.conv_out"] == "conv_out"


def test_stages_of_unequal_depth_are_counted_each():
    config = {"down_block_types": ["", ""], "layers_per_block": [1, 3]}
    layers = {
        "down_blocks.1.resnets.2.conv1": "input_blocks.5.0.in_layers.2",  # 1 | 2, 3 4 5
        "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
        "up_blocks.0.resnets.3.conv1": "output_blocks.3.0.in_layers.2",  # the inner stage first: 0 1 2 3, 4 5
        "up_blocks.1.resnets.1.conv1": "output_blocks.5.0.in_layers.2",
    }
    found = spelling.spellings("unet", layers, config)
    assert {layer: found[original] for layer, original in layers.items()} == {layer: layer for layer in layers}


def test_a_layer_without_an_original_name_keeps_its_own():
    found = spelling.spellings("unet", ["encoder_hid_proj"], CONFIG)
    assert set(found.values()) == {"encoder_hid_proj"}
    assert found["lora_unet_encoder_hid_proj"] == "encoder_hid_proj"
    assert len(found) == 1 + len(spelling.PREFIXES["unet"])


def test_what_a_bundle_carries_is_spelled_without_what_files_put_before_it():
    bare = spelling.bares("unet", ["down_blocks.1.resnets.0.conv1"], {"down_block_types": [""] * 3, "layers_per_block": 1})
    assert bare == {"down_blocks.1.resnets.0.conv1": ("down_blocks.1.resnets.0.conv1", "input_blocks.3.0.in_layers.2")}
    names = set(spelling.prefixed("unet", next(iter(bare.values()))))
    assert {"lora_unet_input_blocks_3_0_in_layers_2", "unet.down_blocks.1.resnets.0.conv1"} <= names
    assert spelling.bares("transformer", ["blocks.0"], {}) == {"blocks.0": ("blocks.0",)}

"""Outlines of UNets and VAEs, counted by hand from configs and from shapes in both layouts."""

import dataclasses

import pytest

from exporter.models import architectures, recognition
from exporter.models.recognition import Outline

#: Two stages, a layer each, attention in the outer one.
CONFIG = {
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "cross_attention_dim": 12,
}
#: Down 8 → 8 and 8 → 16, twice 16 → 16 in the middle; up, each with what its skip brings: 16+16, 16+8, 16+8, 8+8.
RESNETS = ((8, 8), (8, 16), (16, 8), (16, 16), (16, 16), (24, 8), (24, 16), (32, 16))
#: One down, one in the middle, two up.
ATTENTIONS = ((8, 8), (8, 8), (8, 8), (16, 16))
PLAIN = Outline(channels=4, out=4, context=(12,), added=0, guided=0, resnets=RESNETS, attentions=ATTENTIONS)


def test_a_small_unet_is_counted_block_by_block():
    assert recognition.of_config(CONFIG) == PLAIN


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"in_channels": 9}, {"channels": 9}),
        ({"out_channels": 8}, {"out": 8}),
        ({"cross_attention_dim": [12, 20]}, {"context": (12, 20)}),
        ({"time_cond_proj_dim": 256}, {"guided": 256}),
        ({"addition_embed_type": "text_time", "projection_class_embeddings_input_dim": 72}, {"added": 72}),
        ({"projection_class_embeddings_input_dim": 72}, {}),  # of another kind of embedding, which is not looked at
        ({"mid_block_type": None}, {"resnets": tuple(sorted((*RESNETS[:3], *RESNETS[5:]))), "attentions": ((8, 8),) * 3}),
        (
            {"mid_block_type": "UNetMidBlock2D"},
            {"resnets": (*RESNETS[:3], (16, 16), *RESNETS[5:]), "attentions": ((8, 8),) * 3},
        ),
        # Self-attention that reads the text: keys as wide as that.
        ({"only_cross_attention": [True, False]}, {"attentions": ((8, 12), (8, 12), (8, 12), (16, 16))}),
        ({"transformer_layers_per_block": [2, 3]}, {"attentions": ((8, 8),) * 6 + ((16, 16),) * 3}),
        ({"transformer_layers_per_block": 2}, {"attentions": ((8, 8),) * 6 + ((16, 16),) * 2}),
        (
            {"transformer_layers_per_block": [1, 1], "reverse_transformer_layers_per_block": [1, 4]},
            {"attentions": ((8, 8),) * 9 + ((16, 16),)},
        ),
    ],
)
def test_what_a_field_changes(change, differs):
    found = recognition.of_config(CONFIG | change)
    assert found == dataclasses.replace(PLAIN, **differs)
    assert found.differences(PLAIN) == [field.name for field in dataclasses.fields(Outline) if field.name in differs]


def test_a_stage_may_have_more_layers_than_another():
    found = recognition.of_config(CONFIG | {"layers_per_block": [1, 2], "mid_block_type": None})
    # One more down in the inner stage, 16 → 16, and one more up there: 16+16 before the last of its three.
    assert found.resnets == ((8, 8), (8, 16), (16, 8), (16, 16), (24, 8), (24, 16), (32, 16), (32, 16))


def test_no_attention_reads_no_text():
    found = recognition.of_config(
        CONFIG
        | {"down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2, "mid_block_type": "UNetMidBlock2D"}
    )
    assert (found.context, found.attentions) == ((), ())


LDM = {
    "input_blocks.0.0.weight": (8, 4, 3, 3),
    "input_blocks.1.0.in_layers.2.weight": (8, 8, 3, 3),
    "input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight": (8, 8),
    "input_blocks.1.1.transformer_blocks.0.attn1.to_k.weight": (8, 12),
    "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (8, 20),
    "middle_block.0.in_layers.2.weight": (16, 8, 3, 3),
    "label_emb.0.0.weight": (32, 72),
    "time_embed.cond_proj.weight": (8, 256),
    "out.2.weight": (6, 8, 3, 3),
}
DIFFUSERS = {
    "conv_in.weight": (8, 4, 3, 3),
    "down_blocks.0.resnets.0.conv1.weight": (8, 8, 3, 3),
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight": (8, 8),
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k.weight": (8, 12),
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight": (8, 20),
    "mid_block.resnets.0.conv1.weight": (16, 8, 3, 3),
    "add_embedding.linear_1.weight": (32, 72),
    "time_embedding.cond_proj.weight": (8, 256),
    "conv_out.weight": (6, 8, 3, 3),
}
READ = Outline(
    channels=4, out=6, context=(20,), added=72, guided=256, resnets=((8, 8), (8, 16)), attentions=((8, 12),)
)  # fmt: skip


@pytest.mark.parametrize("shapes", [LDM, DIFFUSERS], ids=["ldm", "diffusers"])
@pytest.mark.parametrize("start", ["", "model.diffusion_model.", "unet."])
def test_shapes_of_both_layouts_say_the_same(shapes, start):
    # A VAE beside it has convolutions of such names too, under another prefix or in other blocks.
    beside = {"first_stage_model.decoder.conv_in.weight": (7, 7, 3, 3), "extra": ()} if start else {"norm.weight": (3,)}
    assert recognition.outline({f"{start}{name}": shape for name, shape in shapes.items()} | beside) == READ


@pytest.mark.parametrize(
    "shapes",
    [
        {},
        {"input_blocks.0.0.weight": (8, 4, 3, 3)},  # no block
        {"down_blocks.0.resnets.0.conv1.weight": (8, 8, 3, 3)},  # no first convolution
        {"conv_in.weight": (8,), "down_blocks.0.resnets.0.conv1.weight": (8, 8, 3, 3)},  # of too few axes
        {"vae.encoder.conv_in.weight": (8, 3, 3, 3), "vae.encoder.down_blocks.0.resnets.0.conv1.weight": (8, 8, 3, 3)},
    ],
)
def test_what_is_no_unet_has_no_outline(shapes):
    assert recognition.outline(shapes) is None


def test_published_unets_are_told_apart_but_for_those_that_are_one():
    v1, v2 = (recognition.known()[name] for name in ("sd-v1-5", "sd-v2-1"))
    assert "sd-v1-5" in recognition.same(v1)
    assert set(recognition.same(v2)) == {"sd-v2-1", "sd-v2-1-base"}
    assert recognition.same(PLAIN) == []
    assert set(v1.differences(v2)) == {"context"}
    assert set(recognition.known()) == set(architectures.names()) - {"sdxl-controlnet"}


def test_the_nearest_differs_in_the_fewest_fields():
    found = dataclasses.replace(recognition.known()["sd-v1-5"], added=72)
    assert recognition.nearest(found) == ("sd-v1-5", ["added"])


#: Two stages of two layers.
VAE = {
    "encoder.conv_in.weight": (8, 3, 3, 3),
    **{f"encoder.down.{stage}.block.{layer}.conv1.weight": (8 << stage, 8, 3, 3) for stage in (0, 1) for layer in (0, 1)},
    "decoder.conv_in.weight": (16, 4, 3, 3),
    "decoder.conv_out.weight": (3, 8, 3, 3),
    "quant_conv.weight": (8, 8, 1, 1),
}


@pytest.mark.parametrize("start", ["", "first_stage_model.", "vae."])
def test_a_vae_tells_its_config(start):
    assert recognition.vae({f"{start}{name}": shape for name, shape in VAE.items()}) == {
        "block_out_channels": [8, 16],
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "layers_per_block": 2,
        "latent_channels": 4,
        "in_channels": 3,
        "out_channels": 3,
        "use_quant_conv": True,
        "use_post_quant_conv": False,
    }


def test_a_vae_in_diffusers_names_tells_the_same():
    renamed = {name.replace("down.", "down_blocks.").replace("block.", "resnets."): shape for name, shape in VAE.items()}
    renamed["post_quant_conv.weight"] = (4, 4, 1, 1)
    assert "encoder.down_blocks.1.resnets.0.conv1.weight" in renamed
    assert recognition.vae(renamed) == recognition.vae(VAE) | {"use_post_quant_conv": True}


def test_half_a_vae_tells_nothing():
    assert recognition.vae({name: shape for name, shape in VAE.items() if "decoder" not in name}) == {}
    assert recognition.vae({name: shape for name, shape in VAE.items() if "encoder" not in name}) == {}


@pytest.mark.parametrize("name", [name for name in VAE if "conv" in name and "quant" not in name])
@pytest.mark.parametrize("left", [None, (), (4,)], ids=["gone", "a number", "flat"])
def test_a_vae_that_lacks_a_tensor_tells_nothing_wrong(name, left):
    whole, shapes = recognition.vae(VAE), {**VAE, name: left}
    found = recognition.vae({each: shape for each, shape in shapes.items() if shape is not None})
    # Without the last layers of a stage, the others say how many there are.
    assert found == {} or found.keys() == whole.keys()

"""What Stable Diffusion and SDXL share is read off configs: sizes, ports, and what cannot be."""

from dataclasses import replace

import pytest

from engines.errors import RecipeError, UnsupportedError
from engines.manifest import Tile
from exporter.families.sd import Sd
from exporter.families.sdxl import Sdxl
from exporter.recipe.schema import Component, Shapes
from tests.exporter import equality


@pytest.fixture(scope="module")
def family(tiny_sd):
    return equality.family(Sd, tiny_sd, components=("vae_encoder",))


def changed(family, component, **fields):
    """The same family of a model with other fields in a config."""
    configs = {**family.configs, component: {**family.configs[component], **fields}}
    return family.replacing(checkpoint=replace(family.checkpoint, configs=configs))


def test_sizes_are_those_of_the_configs(family):
    assert (family.factor, family.channels, family.branches) == (4, 4, 2)
    assert (family.length("text_encoder"), family.width("text_encoder")) == (77, 16)
    assert family.latent_shape(3, 32, 64) == (3, 4, 8, 16)
    assert changed(family, "tokenizer", model_max_length=20).length("text_encoder") == 20
    assert changed(family, "tokenizer", model_max_length=10**30).length("text_encoder") == 77
    tiny = {"_class_name": "AutoencoderTiny", "decoder_block_out_channels": [8] * 3, "upsampling_scaling_factor": 2}
    assert changed(family, "vae", **tiny).factor == 4


def test_parts_are_wired_by_name(family):
    signatures = {name: family.signature(name) for name in family.roles}
    assert dict(family.roles) == {
        "text_encoder": "text", "unet": "denoiser", "vae_decoder": "decoder", "vae_encoder": "encoder"
    }  # fmt: skip
    ports = {name: ([p.name for p in each.inputs], [p.name for p in each.outputs]) for name, each in signatures.items()}
    assert ports == {
        "text_encoder": (["tokenizer_ids"], ["prompt_embeds"]),
        "unet": (["latent", "timestep", "prompt_embeds", "guidance_scale"], ["model_output"]),
        "vae_decoder": (["latent"], ["image"]),
        "vae_encoder": (["image", "noise"], ["latent"]),
    }
    assert signatures["vae_decoder"].outputs[0].shape == ("batch", "4*latent_height", "4*latent_width", 3)
    height = signatures["unet"].dims["latent_height"]
    assert (height.min, height.typical, height.max, height.multiple) == (8, 12, 16, 4)
    assert signatures["text_encoder"].dims.keys() == {"batch"}


def test_a_tiled_decoder_takes_no_more_than_a_tile(family):
    tiled = {"vae_decoder": Component(tile=Tile(size=12, overlap=4))}
    own = family.replacing(recipe=family.recipe.model_copy(update={"components": tiled}))
    dims = own.signature("vae_decoder").dims
    assert [(dims[side].min, dims[side].typical, dims[side].max) for side in ("latent_height", "latent_width")] == [
        (8, 12, 12), (8, 12, 12)
    ]  # fmt: skip
    assert dims["batch"] == family.signature("unet").dims["batch"]
    assert own.signature("unet") == family.signature("unet")


def test_every_problem_is_told(family):
    shapes = Shapes(height=(32, 42, 64), width=(4, 64, 64), batch=(1, 1, 1))
    tiles = {"unet": Tile(size=8, overlap=2), "vae_decoder": Tile(size=10, overlap=2), "une": None}
    components = {name: Component(tile=tile) for name, tile in tiles.items()}
    with pytest.raises(RecipeError) as error:
        family.replacing(recipe=family.recipe.model_copy(update={"shapes": shapes, "components": components}))
    why = "is not a multiple of 8 (diffusers draws no other sizes; 16 is what this UNet halves evenly); nearest:"
    assert list(error.value.problems) == [
        "components.une: this model has none; did you mean 'unet'?",
        f"shapes.height: 42 px {why} 40 or 48",
        f"shapes.width: 4 px {why} 8",
    ]
    with pytest.raises(RecipeError) as error:
        family.replacing(recipe=family.recipe.model_copy(update={"components": components}))
    assert list(error.value.problems) == [
        "components.une: this model has none; did you mean 'unet'?",
        "components.unet.tile: only vae_decoder has tiles; leave it out",
        "components.vae_decoder.tile.size: 10 is not a multiple of 4, as all of this recipe's latents are; nearest: 8 or 12",
    ]


@pytest.mark.parametrize(
    ("component", "fields", "told"),
    [
        ("unet", {"in_channels": 9}, "takes 9 channels and gives 4, the VAE has 4"),
        ("vae", {"latent_channels": 16}, "the VAE has 16"),
        ("unet", {"class_embed_type": "timestep"}, "unet.class_embed_type is 'timestep'"),
        ("unet", {"encoder_hid_dim_type": "text_proj"}, "unet.encoder_hid_dim_type is 'text_proj'"),
        ("text_encoder", {"use_attention_mask": True}, "text_encoder.use_attention_mask is true"),
    ],
)
def test_a_model_that_is_none_of_these(family, component, fields, told):
    with pytest.raises(UnsupportedError, match=told):
        changed(family, component, **fields)


@pytest.mark.parametrize(
    ("mode", "takes", "told"), [("embedded", None, "has no input for it"), ("classifier_free", 32, "use embedded")]
)
def test_guidance_is_what_the_network_takes(family, mode, takes, told):
    sampler = family.recipe.sampler.model_copy(
        update={"guidance": family.recipe.sampler.guidance.model_copy(update={"mode": mode})}
    )
    recipe = family.recipe.model_copy(update={"sampler": sampler})
    with pytest.raises(RecipeError, match=told):
        changed(family, "unet", time_cond_proj_dim=takes).replacing(recipe=recipe)


def test_a_scheduler_that_diffusers_has_not(family):
    sampler = family.recipe.sampler.model_copy(update={"scheduler": "EulerDiscretScheduler"})
    with pytest.raises(RecipeError, match="no scheduler named 'EulerDiscretScheduler'; did you mean 'EulerDiscreteScheduler'"):
        family.replacing(recipe=family.recipe.model_copy(update={"sampler": sampler})).scheduler()


def test_a_tokenizer_that_is_larger_than_its_tower_or_not_there(family, tmp_path):
    small = changed(family, "text_encoder", vocab_size=100)
    with pytest.raises(UnsupportedError, match=r"has \d+ tokens, text_encoder has room for 100"):
        small.tokenizer("tokenizer")
    empty = family.replacing(checkpoint=replace(family.checkpoint, folders={"tokenizer": tmp_path}))
    with pytest.raises(UnsupportedError, match=r"has neither vocab\.json nor tokenizer\.json"):
        empty.tokenizer("tokenizer")


def test_both_towers_of_xl_are_inputs_of_its_unet(tiny_sdxl):
    names = [port.name for port in equality.family(Sdxl, tiny_sdxl).signature("unet").inputs]
    assert names == ["latent", "timestep", "prompt_embeds", "prompt_embeds_2", "pooled_prompt_embeds", "guidance_scale"]

"""Files as merges and trainers leave them load as the model that they are; parts of models are taken where they belong."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from engines.errors import RecipeError, UnsupportedError
from exporter.recipe.schema import Recipe
from exporter.stages.plan import Plan
from tests.exporter import models, original
from tests.exporter.models.test_single_file import known, resolved, same  # noqa: F401 - a fixture

U, V = "model.diffusion_model.", "first_stage_model."
TO_Q = {"q.": "to_q.", "k.": "to_k.", "v.": "to_v.", "proj_out.": "to_out.0."}
RECIPE = """\
model: {source: %s%s}
sampler: {scheduler: EulerDiscreteScheduler, steps: [2], guidance: {mode: classifier_free, scale: 3.0}}
shapes: {height: [32, 32, 32], width: [32, 32, 32]}
components: {%s}
"""
pytestmark = pytest.mark.usefixtures("known")


@pytest.fixture(scope="module")
def plain(tiny_sdxl, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    for name in ("tokenizer", "tokenizer_2"):
        shutil.copytree(tiny_sdxl / name, folder / name)
    return original.save(tiny_sdxl, folder / "plain.safetensors", openclip=("text_encoder_2",))


@pytest.fixture
def written(plain, tmp_path):
    def write(change=lambda tensors: tensors, words=None):
        file = plain.parent / f"{tmp_path.name}.safetensors"
        tensors = change(dict(load_file(plain)))
        save_file({name: value.contiguous().clone() for name, value in tensors.items()}, file, words)
        return file

    return write


def spelled(key: str) -> str:
    head, mid, rest = key.partition("mid.attn_1.")
    return next((head + mid + rest.replace(old, new, 1) for old, new in TO_Q.items() if mid and rest.startswith(old)), key)


def as_linear(tensors):
    key = "conditioner.embedders.1.model.text_projection"
    return {**tensors, f"{key}.weight": tensors.pop(key).T}


def scaled(tensors, key="scale_weight"):
    """Linear layers of the UNet as fp8 with a scale, and what they stand for."""
    for name in [name for name in tensors if name.startswith(U) and name.endswith("to_q.weight")]:
        scale = tensors[name].abs().max() / 200
        tensors[name] = (tensors[name] / scale).to(torch.float8_e4m3fn)
        tensors[f"{name.removesuffix('weight')}{key}"] = scale
        tensors[f"{name.removesuffix('weight')}{'scale_input' if key == 'scale_weight' else 'input_scale'}"] = torch.tensor(1.0)
    return {**tensors, f"{U}scaled_fp8": torch.zeros(0, dtype=torch.float8_e4m3fn)}


@pytest.mark.parametrize(
    "change",
    [
        lambda t: {**t, "conditioner.embedders.0.transformer.text_projection.weight": torch.eye(16)},
        as_linear,
        lambda t: {**t, f"{V}loss.logvar": torch.zeros(()), f"{V}loss.discriminator.main.0.weight": torch.zeros(2, 2)},
        lambda t: {**t, f"{V}model_ema.decay": torch.tensor(0.99), f"{V}model_ema.num_updates": torch.tensor(1)},
        lambda t: {spelled(key): value for key, value in t.items()},
        lambda t: {spelled(key): value.squeeze() if "attn_1" in key else value for key, value in t.items()},
        lambda t: {**t, "model_ema.diffusion_modelinput_blocks00weight": torch.zeros(3), "alphas_cumprod": torch.zeros(1000)},
        lambda t: {**t, f"{U}scaled_fp8": torch.zeros(1)},
        lambda t: {**t, "conditioner.embedders.1.model.attn_mask": torch.zeros(77, 77)},
        lambda t: {**t, "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None]},
        lambda t: {key.replace("conditioner.embedders.0.", "text_encoders.clip_l."): value for key, value in t.items()},
    ],
    ids=[
        *("projection of L", "projection of G", "loss", "EMA", "to_q", "linear to_q", "ldm", "marker", "mask", "other parent"),
        "clip_l",
    ],
)
def test_leftovers_and_spellings(written, change, tiny_sdxl):
    found = resolved(written(change))
    same(found, tiny_sdxl)
    assert found.notes == ()


def test_weights_of_the_other_parent_are_named(written, tiny_sdxl):
    found = resolved(written(lambda t: {**t, "cond_stage_model.transformer.text_model.final_layer_norm.bias": torch.zeros(16)}))
    same(found, tiny_sdxl)
    (note,) = found.notes
    assert note.endswith("of no network that is built: cond_stage_model.transformer.text_model.final_layer_norm.bias")


def test_a_vae_of_another_shape_than_the_architecture_s(written):
    other = models.vae(block_out_channels=[4, 12, 16], use_quant_conv=False, use_post_quant_conv=False, scaling_factor=0.13025)
    own = {f"{V}{name}": value for name, value in original.vae(other.state_dict()).items()}
    found = resolved(written(lambda t: {**{name: value for name, value in t.items() if not name.startswith(V)}, **own}))
    made = found.module("vae").state_dict()
    assert all(torch.equal(made[name], value) for name, value in other.state_dict().items())
    assert made.keys() == other.state_dict().keys()


@pytest.mark.parametrize("number", [0, 1])
def test_a_missing_text_encoder_is_told_before_the_work(written, number):
    file = written(lambda t: {name: value for name, value in t.items() if f"embedders.{number}." not in name})
    with pytest.raises(UnsupportedError) as caught:
        resolved(file)
    assert f"has no text_encoder{'_2' * number}, which a model of tiny-sdxl's kind has.\n  Name the model" in str(caught.value)


@pytest.mark.parametrize("key", ["scale_weight", "weight_scale"])
def test_scaled_fp8(written, key, tiny_sdxl):
    found = resolved(written(lambda tensors: scaled(tensors, key))).module("unet").state_dict()
    wanted = load_file(tiny_sdxl / "unet" / "diffusion_pytorch_model.safetensors")
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0.05 * float(value.abs().max()) if "to_q" in name else 0)
    assert any(not torch.equal(found[name], wanted[name]) for name in wanted if "to_q" in name)


def test_four_bits_are_called_so(written):
    told = json.dumps({"format": "nvfp4"}).encode()
    layer = f"{U}input_blocks.2.1.transformer_blocks.0.attn1.to_q"
    file = written(lambda t: {**t, f"{layer}.comfy_quant": torch.tensor(list(told), dtype=torch.uint8)})
    with pytest.raises(UnsupportedError, match="packed in 4 bits"):
        resolved(file).module("unet")
    with pytest.raises(UnsupportedError, match=r"packed in 4 bits .*\n  Take the file in fp16"):
        resolved(written(lambda t: {**t, f"{layer}.weight.absmax": torch.zeros(3)}))


def channels(count):
    return lambda t: {**t, f"{U}input_blocks.0.0.weight": torch.zeros(8, count, 3, 3)}


def only(start, *, cut=True):
    return lambda t: {key.removeprefix(start) if cut else key: value for key, value in t.items() if key.startswith(start)}


@pytest.mark.parametrize(
    ("change", "words", "told"),
    [
        (channels(9), {}, "is an inpainting model"),
        (channels(8), {}, "InstructPix2Pix"),
        (channels(5), {}, "a depth-to-image model"),
        (lambda t: {k: v for k, v in t.items() if not k.startswith(V)}, {}, "is a model without its VAE.\n  Name another's"),
        (only(U, cut=False), {}, "is a UNet alone.\n  Name the model that it belongs to"),
        (only(U), {}, "is a UNet alone"),
        (only(V), {}, "is a VAE alone.\n  Name a model as model.source, and this file"),
        (only(V, cut=False), {}, "is a VAE alone"),
        (only("conditioner."), {}, "is a text encoder alone"),
        (lambda _: {"lora_unet_x.lora_up.weight": torch.zeros(1)}, {}, "is a LoRA, not a model.\n  Name a model"),
        (lambda _: {"lora_unet_x.hada_w1_a": torch.zeros(1)}, {}, "is a LoRA"),
        (lambda _: {"clip_l": torch.zeros(2, 768), "clip_g": torch.zeros(2, 1280)}, {}, "is a textual inversion"),
        (lambda _: {"<cat>": torch.zeros(2, 768)}, {}, "is a textual inversion"),
        (lambda _: {"anything": torch.zeros(2)}, {"modelspec.architecture": "sd/lora"}, "is a LoRA"),
        (lambda _: {"control_model.input_hint_block.0.weight": torch.zeros(2)}, {}, "is a ControlNet"),
        (lambda t: {**only(U)(t), "controlnet_cond_embedding.x.weight": torch.zeros(2)}, {}, "is a ControlNet"),
        (lambda _: {"ip_adapter.1.x": torch.zeros(2), "image_proj.proj.weight": torch.zeros(2)}, {}, "is an adapter"),
        (lambda _: {"model.diffusion_model.joint_blocks.0.x": torch.zeros(2)}, {}, "is a diffusion transformer"),
        (lambda _: {"double_blocks.0.img_attn.qkv.weight": torch.zeros(2)}, {}, "is a diffusion transformer"),
        (lambda t: {**t, f"{U}input_blocks.1.1.time_stack.0.x": torch.zeros(2)}, {}, "is a video model"),
        (lambda _: {"encoder.0.weight": torch.zeros(2), "decoder.1.weight": torch.zeros(2)}, {}, "is a tiny autoencoder"),
    ],
)  # fmt: skip
def test_kinds(written, change, words, told):
    for fields in ({}, {"architecture": "tiny-sdxl"}):
        with pytest.raises(UnsupportedError) as caught:
            resolved(written(change, words), **fields)
        assert told in str(caught.value)


def test_a_refiner_by_its_text(tmp_path):
    shapes = {"input_blocks.0.0.weight": (8, 4, 3, 3), "input_blocks.1.0.in_layers.2.weight": (8, 8, 3, 3)}
    shapes |= {"label_emb.0.0.weight": (8, 2560), "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (8, 1280)}
    tensors = {f"{U}{name}": torch.zeros(shape) for name, shape in shapes.items()}
    save_file({**tensors, "conditioner.embedders.0.model.x": torch.zeros(1)}, tmp_path / "m.safetensors")
    with pytest.raises(UnsupportedError, match="is SDXL's refiner"):
        resolved(tmp_path / "m.safetensors")


def planned(source, *, vae="", components=""):
    return Plan(Recipe.parse(RECIPE % (source, f", vae: {vae}" if vae else "", components), "x", shown="x.yaml"))


def alone(tmp_path, tensors, name="part"):
    save_file({key: value.contiguous().clone() for key, value in tensors.items()}, tmp_path / f"{name}.safetensors")
    return tmp_path / f"{name}.safetensors"


def test_another_vae(written, tiny_sdxl, tmp_path):
    other = models.vae(scaling_factor=0.13025)
    other.decoder.conv_out.bias.data += 1
    other.save_pretrained(tmp_path / "vae")
    whole = written()
    bare = written(lambda t: {k: v for k, v in t.items() if not k.startswith(V)})
    in_diffusers = load_file(tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
    ways = [tmp_path / "vae", alone(tmp_path, in_diffusers, "a"), alone(tmp_path, original.vae(in_diffusers), "b")]
    ways.append(alone(tmp_path, {f"{V}{key}": value for key, value in original.vae(in_diffusers).items()}, "c"))
    for source in (whole, bare, tiny_sdxl):
        for way in ways:
            checkpoint = planned(source, vae=way).checkpoint
            found = checkpoint.module("vae").state_dict()
            assert all(torch.equal(found[name], value) for name, value in in_diffusers.items()), way
            assert checkpoint.provenance["vae"] == str(way)
            assert checkpoint.configs["vae"]["scaling_factor"] == 0.13025
        assert checkpoint.digest("vae") != planned(tiny_sdxl).checkpoint.digest("vae")
    assert planned(tiny_sdxl, vae=tiny_sdxl).checkpoint.module("vae")


def test_a_vae_of_another_size_in_one_file(tiny_sdxl, tmp_path):
    other = models.vae(block_out_channels=[4, 12, 16], layers_per_block=2, scaling_factor=0.13025)
    file = alone(tmp_path, original.vae(other.state_dict()))
    found = planned(tiny_sdxl, vae=file).checkpoint.module("vae")
    assert found.config.block_out_channels == [4, 12, 16]
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in found.state_dict().items())


def test_a_vae_that_does_not_fit(tiny_sdxl, tmp_path):
    wide = alone(tmp_path, original.vae(models.vae(latent_channels=16).state_dict()))
    with pytest.raises(UnsupportedError, match=r"model\.vae .* has another latent space .* its latent_channels is 16"):
        planned(tiny_sdxl, vae=wide)
    with pytest.raises(RecipeError, match=r"model\.vae: 'nowhere' is neither a file or folder"):
        planned(tiny_sdxl, vae="nowhere")
    with pytest.raises(RecipeError, match=r"model\.vae: the model's weights are random"):
        planned(f"{tiny_sdxl}, weights: random", vae=tiny_sdxl)


def test_a_decoder_alone_is_no_vae(tiny_sdxl, tmp_path):
    half = {name: value for name, value in original.vae(models.vae().state_dict()).items() if name.startswith(("dec", "post"))}
    with pytest.raises(UnsupportedError, match=r"is a VAE's decoder alone\.\n  .*components\.vae_decoder\.passes"):
        planned(tiny_sdxl, vae=alone(tmp_path, half))


def swapped(part, file):
    return f"{part}: {{passes: [{{swap: {{source: {file}}}}}]}}"


@pytest.mark.parametrize("layout", ["diffusers", "ldm", "ldm under its prefix", "among others"])
def test_swaps_from_one_file(written, tiny_sdxl, tmp_path, layout):
    unet, vae = models.unet_xl(), models.vae(scaling_factor=0.13025)
    unet.conv_out.bias.data += 1
    vae.decoder.conv_out.bias.data += 1
    if layout == "among others":
        unet, vae = (type(each).from_pretrained(tiny_sdxl, subfolder=name) for each, name in ((unet, "unet"), (vae, "vae")))
        files = {"unet": written(), "vae_decoder": written()}
    else:
        prefix = [U, V] if "prefix" in layout else ["", ""]
        names = {"unet": unet.state_dict(), "vae_decoder": vae.state_dict()}
        if layout != "diffusers":
            names["unet"] = {prefix[0] + original.unet(key, names["unet"]): value for key, value in names["unet"].items()}
            names["vae_decoder"] = {prefix[1] + key: value for key, value in original.vae(names["vae_decoder"]).items()}
        files = {part: alone(tmp_path, tensors, part) for part, tensors in names.items()}
    for part, network in (("unet", unet), ("vae_decoder", vae)):
        plan = planned(tiny_sdxl, components=swapped(part, files[part]))
        plan.refuse()
        found = plan.passes.borrowed(part, "swap").module(part).state_dict()
        assert all(torch.equal(found[name], value) for name, value in network.state_dict().items())


def test_a_swapped_unet_says_what_it_predicts(tiny_sdxl, tmp_path):
    tensors = models.unet_xl().state_dict()
    file = alone(tmp_path, {**tensors, "v_pred": torch.zeros(0)})
    with pytest.raises(UnsupportedError, match="its pipeline's scheduler says 'v_prediction', the source's 'epsilon'"):
        planned(tiny_sdxl, components=swapped("unet", file)).refuse()
    nine = alone(tmp_path, {**tensors, "conv_in.weight": torch.zeros(8, 9, 3, 3)}, "nine")
    with pytest.raises(UnsupportedError, match="is an inpainting model"):
        planned(tiny_sdxl, components=swapped("unet", nine)).refuse()
    tiny = alone(tmp_path, {"decoder.1.weight": torch.zeros(2), "encoder.0.weight": torch.zeros(2)}, "taesd")
    with pytest.raises(UnsupportedError, match="madebyollin/taesdxl"):
        planned(tiny_sdxl, components=swapped("vae_decoder", tiny)).refuse()


def test_a_vae_from_elsewhere_is_not_needed_to_describe(written, tmp_path):
    """The sizes are told without the VAE, which may be on the hub."""
    from exporter.report import describe
    from exporter.stages.store import Store

    bare = written(lambda t: {k: v for k, v in t.items() if not k.startswith(V)})
    recipe = Recipe.parse(RECIPE % (bare, ", vae: owner/name, variant: fp16", ""), "x")
    assert {row["part"] for row in describe.recipe(recipe, Store(tmp_path / "store"))["parts"]} >= {"unet", "vae_decoder"}

"""What a pipeline's folder holds beside what is built is named, and what makes it another kind of model is refused by name."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engines.errors import UnsupportedError
from exporter.families import claim
from exporter.models import architectures
from exporter.models.resolve import resolve
from exporter.recipe.schema import ModelOptions, Recipe
from exporter.stages.plan import Plan
from tools.coverage import conditioned

TEXT = """\
model: {source: %s}
sampler: {steps: [2]}
shapes: {height: [32, 32, 32], width: [32, 32, 32]}
"""


@pytest.fixture
def copy(tiny_sdxl, tmp_path):
    return Path(shutil.copytree(tiny_sdxl, tmp_path / "model"))


def changed(file: Path, **fields) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def planned(folder: Path) -> Plan:
    return Plan(Recipe.parse(TEXT % folder, "x"))


def test_a_plain_pipeline_has_nothing_left(tiny_sdxl, tiny_sd):
    assert planned(tiny_sdxl).notes == ()
    assert planned(tiny_sd).notes == ()


@pytest.mark.parametrize("name", architectures.names())
def test_nor_has_an_architecture(name):
    family = claim(
        resolve(ModelOptions(source=name, weights="random"), Path()),
        Recipe.parse((TEXT % f"{name}, weights: random").replace("32", "512"), "x"),
    )
    assert tuple(family.notes) == ()


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"controlnet": ["diffusers", "ControlNetModel"]}, "left out: controlnet (ControlNetModel); its pictures steer nothing"),
        ({"adapter": ["diffusers", "T2IAdapter"]}, "left out: adapter (T2IAdapter)"),
        ({"image_encoder": ["transformers", "CLIPVisionModelWithProjection"]}, "left out: image_encoder"),
        ({"feature_extractor": ["transformers", "CLIPImageProcessor"]}, "left out: feature_extractor"),
        (
            {"text_encoder_3": ["transformers", "T5EncoderModel"]},
            "left out: text_encoder_3 (T5EncoderModel); nothing here reads it",
        ),
        ({"something_new": ["diffusers", "Thing"]}, "left out: something_new (Thing); nothing here reads it"),
        ({"new_option": True}, "left out: new_option: true of model_index.json"),
        (
            {"_class_name": "StableDiffusionXLKDiffusionPipeline"},
            "saved as StableDiffusionXLKDiffusionPipeline; the bundle draws what StableDiff",
        ),
    ],
)
def test_whatever_else_there_is_is_named(copy, entry, told):
    shutil.copytree(copy / "text_encoder_2", copy / "text_encoder_3")
    changed(copy / "model_index.json", **entry)
    (note,) = planned(copy).notes
    assert told in note


@pytest.mark.parametrize(
    "entry", [{"image_encoder": [None, None]}, {"feature_extractor": None}, {"_class_name": "StableDiffusionXLImg2ImgPipeline"}]
)
def test_what_is_not_there_is_not(copy, entry):
    changed(copy / "model_index.json", **entry)
    assert planned(copy).notes == ()


@pytest.mark.parametrize(
    ("component", "fields", "told"),
    [
        ("unet", {"in_channels": 9}, r"an inpainting model: the UNet takes 9"),
        ("unet", {"in_channels": 8}, r"InstructPix2Pix"),
        ("unet", {"in_channels": 5}, r"depth-to-image"),
        ("unet", {"in_channels": 7}, r"an upscaling model"),
        ("unet", {"out_channels": 8}, r"other inputs than text"),
        ("vae", {"out_channels": 6}, r"other channels than red, green and blue: the VAE takes 3 channels and gives 6"),
        ("vae", {"in_channels": 1, "out_channels": 1}, r"an audio model"),
        ("unet", {"class_embed_type": "projection"}, r"neither text, time nor size: unet\.class_embed_type"),
        ("unet", {"num_class_embeds": 10}, r"unet\.num_class_embeds is 10"),
        ("unet", {"encoder_hid_dim_type": "text_image_proj"}, r"encoder_hid_dim_type"),
    ],
)  # fmt: skip
def test_another_kind_of_model_is_called_by_its_name(copy, component, fields, told):
    changed(copy / component / "config.json", **fields)
    with pytest.raises(UnsupportedError, match=told) as caught:
        planned(copy)
    assert "Take " in str(caught.value).splitlines()[1]


def test_a_text_encoder_that_is_not_clip(copy):
    changed(copy / "model_index.json", text_encoder_2=["transformers", "T5EncoderModel"])
    with pytest.raises(UnsupportedError, match="none of CLIP's: its text_encoder_2 is a T5EncoderModel"):
        planned(copy)


def test_several_networks_under_one_name_are_one_component(tmp_path):
    source = conditioned.MADE["stable-diffusion-controlnets"]()
    source.save_pretrained(tmp_path)
    found = resolve(ModelOptions(source=str(tmp_path)), tmp_path)
    assert found.beside("controlnet") == ("controlnet_1",)
    assert not found.beside("unet")
    made, outline = found.module("controlnet"), found.skeleton("controlnet")
    assert type(made) is type(outline) is type(source.controlnet)
    assert {value.device.type for value in outline.parameters()} == {"meta"}
    own, wanted = made.state_dict(), source.controlnet.state_dict()
    assert own.keys() == wanted.keys() == outline.state_dict().keys()
    assert all(torch.equal(own[name], wanted[name]) for name in wanted)
    before, file = found.digest("controlnet"), tmp_path / "controlnet_1" / "diffusion_pytorch_model.safetensors"
    save_file({name: value + 1 for name, value in load_file(file).items()}, file)
    assert resolve(ModelOptions(source=str(tmp_path)), tmp_path).digest("controlnet") != before

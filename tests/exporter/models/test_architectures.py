"""Every architecture has exactly the published (or computed) number of parameters, on the meta device."""

import json
from pathlib import Path

import pytest

from engines.errors import UnsupportedError
from exporter.families.sd import Sd
from exporter.families.sdxl import Sdxl
from exporter.models import architectures
from exporter.models.resolve import resolve
from exporter.recipe.schema import ModelOptions

CLIP_L, OPENCLIP_H, OPENCLIP_G = 123_060_480, 340_387_840, 694_659_840
KL, TAESD = 83_653_863, 2_445_063
#: UNet, text towers, VAE. Published: BK-SDM, SDXL and KOALA cards (rounded); counted from the configs: all.
COUNTS = {
    "sd-v1-5": (859_520_964, [CLIP_L], KL),
    "sd-v2-1-base": (865_910_724, [OPENCLIP_H], KL),
    "sd-v2-1": (865_910_724, [OPENCLIP_H], KL),
    "sdxl-base": (2_567_463_684, [CLIP_L, OPENCLIP_G], KL),
    "sdxl-turbo": (2_567_463_684, [CLIP_L, OPENCLIP_G], KL),
    "koala-700m": (782_822_724, [CLIP_L, OPENCLIP_G], KL),
    "koala-1b": (1_161_184_324, [CLIP_L, OPENCLIP_G], KL),
    "bk-sdm-base": (579_384_964, [CLIP_L], KL),
    "bk-sdm-small": (482_346_884, [CLIP_L], KL),
    "bk-sdm-tiny": (323_384_964, [CLIP_L], KL),
    "bk-sdm-v2-base": (583_480_964, [OPENCLIP_H], KL),
    "bk-sdm-v2-small": (485_787_524, [OPENCLIP_H], KL),
    "bk-sdm-v2-tiny": (326_825_604, [OPENCLIP_H], KL),
    "ssd-1b": (1_331_334_404, [CLIP_L, OPENCLIP_G], KL),
    "segmind-vega": (745_225_604, [CLIP_L, OPENCLIP_G], KL),
    "sdxs-512-dreamshaper": (315_746_244, [CLIP_L], TAESD),
    "sdxs-512-0.9": (328_177_284, [OPENCLIP_H], TAESD),
    "sd-v1-5-inpainting": (859_535_364, [CLIP_L], KL),
    "instruct-pix2pix": (859_532_484, [CLIP_L], KL),
    "lcm-dreamshaper-v7": (859_602_884, [CLIP_L], KL),
    "lcm-sdxl": (2_567_545_604, [CLIP_L, OPENCLIP_G], KL),
    "sdxl-controlnet": (2_567_463_684, [CLIP_L, OPENCLIP_G], KL),
    "micro-sdxl": (449_972, [60_160, 61_184], 261_079),  # ours
}

#: Whose pipelines take pictures at every step.
PICTURED = ("sd-v1-5-inpainting", "instruct-pix2pix", "sdxl-controlnet")
#: What steers a UNet in some of them, counted from the config.
CONTROLNETS = {"sdxl-controlnet": {"controlnet": 1_251_014_160}}


def size(module) -> int:
    return sum(value.numel() for value in module.parameters())


def checkpoint(name: str):
    return resolve(ModelOptions(source=name, weights="random"), Path())


def test_the_table_is_complete():
    assert sorted(COUNTS) == architectures.names()


@pytest.mark.parametrize("name", COUNTS)
def test_parameters(name):
    unet, towers, vae = COUNTS[name]
    source = checkpoint(name)
    found = {part: size(source.skeleton(part)) for part in source.configs if part in {"unet", "vae"} or part.startswith("text_")}
    assert found == {"unet": unet, "vae": vae, **dict(zip(("text_encoder", "text_encoder_2"), towers, strict=False))}
    found |= {part: size(source.skeleton(part)) for part in source.configs if part == "controlnet"}
    assert {part: count for part, count in found.items() if part == "controlnet"} == CONTROLNETS.get(name, {})
    assert found == architectures.parameters(name), "what recognises single files"


@pytest.mark.parametrize("name", COUNTS)
def test_one_family_claims_it(name):
    configs = checkpoint(name).configs
    towers = len(COUNTS[name][1]) * (name not in PICTURED)
    assert [Sd.claims(configs), Sdxl.claims(configs)] == [towers == 1, towers == 2]


@pytest.mark.parametrize(
    ("name", "encoder", "decoder"), [("sd-v1-5", 34_163_664, 49_490_199), ("sdxs-512-0.9", 1_222_532, 1_222_531)]
)
def test_halves_of_the_vae(name, encoder, decoder):
    vae = checkpoint(name).skeleton("vae")
    halves = [sum(size(half) for half in halves if half is not None) for halves in (
        (vae.encoder, getattr(vae, "quant_conv", None)), (vae.decoder, getattr(vae, "post_quant_conv", None)),
    )]  # fmt: skip
    assert halves == [encoder, decoder]


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UnsupportedError, match="did you mean 'koala-700m'"):
        architectures.configs("koala-700")


def test_files_hold_nothing_unknown():
    known = {*architectures.ABOUT, "model_index", "unet", "vae", "scheduler"}
    known |= {"text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "controlnet"}
    for name in architectures.names():
        assert known >= json.loads((architectures.FOLDER / f"{name}.json").read_text()).keys(), name


def test_a_hub_id_names_the_original():
    """The tokenizers of lcm-sdxl come from SDXL's repository too."""
    assert architectures.of_hub("stabilityai/stable-diffusion-xl-base-1.0") == "sdxl-base"
    assert architectures.of_hub("etri-vilab/koala-700m") == "koala-700m"
    assert architectures.of_hub("owner/name") is None

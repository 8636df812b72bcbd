"""A UNet alone, or a file without all of the rest, as `model.source`: what it lacks comes from `model.base`."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from engines.errors import RecipeError, UnsupportedError
from exporter.models import architectures, recognition
from exporter.recipe.schema import Recipe
from exporter.stages.plan import Plan
from tests.exporter import models, original
from tests.exporter.models.test_single_file import beside, known, resolved  # noqa: F401 - a fixture

U, V, T = "model.diffusion_model.", "first_stage_model.", "conditioner."
RECIPE = """\
model: {source: %s, base: %s%s}
sampler: {scheduler: EulerDiscreteScheduler, steps: [2], guidance: {mode: classifier_free, scale: 3.0}}
shapes: {height: [32, 32, 32], width: [32, 32, 32]}
"""
pytestmark = pytest.mark.usefixtures("known")


@pytest.fixture(scope="module")
def another(tmp_path_factory):
    """An SDXL pipeline with other weights than the base's, and all of it in one file."""
    network = models.unet_xl()
    network.conv_out.bias.data += 1
    folder = models.save_sdxl(tmp_path_factory.mktemp("another"), network=network)
    return folder, original.save(folder, folder / "whole.safetensors", openclip=("text_encoder_2",))


def planned(source, base, more=""):
    return Plan(Recipe.parse(RECIPE % (source, base, more), "x", shown="x.yaml"))


def cut(tensors, *starts, bare=False):
    return {key.removeprefix(starts[0]) if bare else key: value for key, value in tensors.items() if key.startswith(starts)}


@pytest.mark.parametrize("layout", ["ldm", "ldm under its prefix", "diffusers", "folder", "without text", "without VAE"])
def test_what_it_has_is_its_own_and_the_rest_the_base_s(another, tiny_sdxl, tmp_path, layout):
    folder, whole = another
    tensors, file = load_file(whole), tmp_path / "part.safetensors"
    made = {
        "ldm": lambda: cut(tensors, U, bare=True),
        "ldm under its prefix": lambda: cut(tensors, U),
        "diffusers": lambda: load_file(folder / "unet/diffusion_pytorch_model.safetensors"),
        "without text": lambda: cut(tensors, U, V),
        "without VAE": lambda: cut(tensors, U, T),
    }
    if layout == "folder":
        file = folder / "unet"
    else:
        save_file({name: value.contiguous() for name, value in made[layout]().items()}, file)
    plan = planned(file, tiny_sdxl)
    plan.refuse()
    found, theirs, base = plan.checkpoint, *(resolved(each) for each in (folder, tiny_sdxl))
    for name in ("unet", "vae", "text_encoder", "text_encoder_2"):
        wanted = (theirs if name == "unet" else base).module(name).state_dict()
        ours = found.module(name).state_dict()
        assert ours.keys() == wanted.keys()
        assert all(torch.equal(ours[key], value) for key, value in wanted.items()), name
    assert found.originals == {
        "folder": set(), "without text": {"unet", "vae"}, "without VAE": {"unet", "text_encoder", "text_encoder_2"}
    }.get(layout, {"unet"})  # fmt: skip
    assert found.provenance["source"] == str(file)
    assert found.provenance["base"] == str(tiny_sdxl)
    assert found.digest("unet") != base.digest("unet")
    assert found.notes == ()


def test_the_base_may_be_one_file(another, tiny_sdxl, tmp_path):
    folder, whole = another
    file = beside(tmp_path / "base", folder)
    shutil.copy(whole, file)
    found = planned(tiny_sdxl / "unet", file).checkpoint
    assert torch.equal(found.module("unet").conv_out.bias, resolved(tiny_sdxl).module("unet").conv_out.bias)
    assert found.folders["tokenizer"] == file.parent / "tokenizer"


def test_what_the_file_says_of_itself_counts(tiny_sdxl, tmp_path):
    tensors = load_file(tiny_sdxl / "unet/diffusion_pytorch_model.safetensors")
    save_file({**tensors, "v_pred": torch.zeros(0), "ztsnr": torch.zeros(0), "other": torch.zeros(1)}, tmp_path / "v.safetensors")
    found = planned(tmp_path / "v.safetensors", tiny_sdxl).checkpoint
    assert found.configs["scheduler"]["prediction_type"] == "v_prediction"
    assert found.configs["scheduler"]["rescale_betas_zero_snr"] is True
    assert "prediction_type v_prediction (its key v_pred)" in found.provenance["says"]


def test_a_file_that_does_not_fit(tiny_sd, tiny_sdxl, tmp_path):
    unet = tiny_sdxl / "unet/diffusion_pytorch_model.safetensors"
    with pytest.raises(UnsupportedError, match=r"model\.source .* has another text width than the source"):
        planned(unet, tiny_sd)
    with pytest.raises(RecipeError, match=r"model\.base: .* is a whole model, which takes nothing from another; leave base out"):
        planned(tiny_sdxl, tiny_sdxl)
    with pytest.raises(RecipeError, match=r"model\.base: random weights need no base"):
        planned(unet, tiny_sdxl, ", weights: random")
    with pytest.raises(RecipeError, match="'nowhere' is neither a file or folder"):
        planned("nowhere", tiny_sdxl)
    save_file({"clip_l": torch.zeros(2, 16), "clip_g": torch.zeros(2, 24)}, tmp_path / "words.safetensors")
    with pytest.raises(UnsupportedError, match=r"is a textual inversion, not a model"):
        planned(tmp_path / "words.safetensors", tiny_sdxl)


def test_without_a_base_it_is_told_which(tiny_sdxl, monkeypatch):
    monkeypatch.setattr(architectures, "hub", {"tiny-sdxl": "stabilityai/tiny", "tiny-sd": None}.get)
    recognition.known.cache_clear()
    with pytest.raises(UnsupportedError) as caught:
        resolved(tiny_sdxl / "unet/diffusion_pytorch_model.safetensors")
    assert str(caught.value).endswith(
        "is a UNet alone.\n  Name the model that it belongs to as model.base: a hub id, a diffusers folder or a whole file; "
        "the rest comes from there.\n  Its UNet is of the kind of stabilityai/tiny."
    )

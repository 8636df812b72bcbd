"""A trial gives a bundle and diffusers the same pictures."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from engines.errors import UnsupportedError
from engines.inputs import Input, Preprocessing
from exporter.recipe.schema import Recipe
from tools.coverage import trial
from tools.coverage.models import MADE

SIZE = {"image": ("batch", 32, 48, 3), "mask": ("batch", 32, 48, 1)}


def entry(kind, resize="stretch"):
    return Input(kind=kind, shape=SIZE[kind], preprocessing=Preprocessing(resize=resize))


def test_pictures_are_larger_than_what_is_drawn_where_the_bundle_resizes_them():
    inputs = {"image": entry("image"), "mask": entry("mask"), "fits": entry("image", "none")}
    made = trial._pictures(inputs, 2, {}, resized=True)
    assert {name: [each.size for each in own] for name, own in made.items()} == {
        "image": [(72, 48)] * 2,
        "mask": [(72, 48)] * 2,
        "fits": [(48, 32)] * 2,
    }
    assert np.unique(np.asarray(made["mask"][0])).tolist() == [0, 255]
    assert not np.array_equal(*map(np.asarray, made["image"]))
    assert {each.size for own in trial._pictures(inputs, 2, {}, resized=False).values() for each in own} == {(48, 32)}


def test_diffusers_is_handed_them_by_its_own_words_and_those_that_are_numbered_as_lists():
    pictures = {"image": ["a", "b"], "image_2": ["c", "d"], "mask": ["e", "f"]}
    assert trial.handed(pictures) == {"image": [["a", "c"], ["b", "d"]], "mask_image": ["e", "f"]}


def test_a_row_says_what_was_left_out_and_what_its_micro_model_has_otherwise():
    refusals = [UnsupportedError("no graph\n  of two")]
    assert trial.limits("flux", "", refusals, "…") == {}
    assert trial.limits("flux", "one picture at a time", refusals, "…") == {
        "only": "one picture at a time",
        "why": "no graph of two",
    }
    own = "with a scheduler of a fixed variance and no thresholding"
    assert trial.limits("if", "", [], "…") == {"only": own}
    assert trial.limits("if", "one picture at a time", refusals, "…")["only"] == f"one picture at a time, {own}"


def test_a_pipeline_to_which_a_list_is_one_prompt_s_is_called_for_each():
    class StableDiffusionXLControlNetUnionPipeline:
        def __call__(self, prompt, control_image, generator, output_type, return_dict):  # noqa: ARG002 - as diffusers has it
            assert len(prompt) == len(control_image) == len(generator) == 1
            assert not return_dict
            return (np.full((1, 2, 2, 3), control_image[0]),)

    found = trial.drawn_by(
        StableDiffusionXLControlNetUnionPipeline(), ["a", "b"], ["x", "y"], {"control_image": [1, 2]}, ["control_image"]
    )
    assert found[:, 0, 0, 0].tolist() == [1, 2]


def test_a_pipeline_that_takes_one_picture_and_no_list_is_given_one():
    class QwenImageEditPipeline:
        def __call__(self, prompt, image, generator, output_type, return_dict):  # noqa: ARG002 - as diffusers has it
            assert isinstance(image, Image.Image)
            return (np.asarray(image, np.float32)[None],)

    shown = [Image.new("RGB", (2, 2), (level, 0, 0)) for level in (10, 20)]
    found = trial.drawn_by(QwenImageEditPipeline(), ["a", "b"], ["x", "y"], {"image": shown}, ["image"])
    assert found[:, 0, 0, 0].tolist() == [10, 20]


def test_pictures_follow_the_sides_of_the_latent():
    open_sides = Input(
        kind="image", shape=("batch", "2*latent_height", "8*latent_width", 3), preprocessing=Preprocessing(resize="none")
    )
    (made,) = trial._pictures({"image": open_sides}, 1, {"latent_height": 16, "latent_width": 6}, resized=True)["image"]
    assert made.size == (48, 32)


def test_in_half_precision_every_bundle_counts_and_a_refusal_is_told(monkeypatch, tmp_path):
    asked, psnr = [], iter([(70.04, 61.0), (55.26, 80.0)])

    def build(widths, *, halves):
        asked.append((widths, halves))
        return "none", tmp_path / "half"

    assert trial.halved([(32,), (48,)], build, lambda **_: next(psnr), str(tmp_path)) == {"fp16": 55.3}
    assert asked == [((32,), True), ((48,), True)]

    def refuse(_widths, *, halves):  # noqa: ARG001 - as it is called
        raise UnsupportedError(f"unet: no such kernel\n  {tmp_path}/unet.onnx")

    told = {"fp16": "unet: no such kernel …/unet.onnx"}
    assert trial.halved([(32,)], refuse, lambda **_: next(psnr), str(tmp_path)) == told
    monkeypatch.setattr(sys, "argv", ["trial", "flux", "--fp32"])
    assert trial.halved([(32,)], refuse, lambda **_: next(psnr), str(tmp_path)) == {}


def test_every_part_of_a_recipe_is_in_halves(tmp_path):
    MADE["auraflow"]().save_pretrained(tmp_path)
    text = trial._RECIPE % (json.dumps({"source": str(tmp_path)}), 2, "{mode: classifier_free, scale: 4.0}", "", *[32] * 6, 1, "")
    found = trial._in_halves(Recipe.parse(text, "auraflow"))
    assert {name: each.precision for name, each in found.components.items()} == dict.fromkeys(
        ("text_encoder", "transformer", "vae_decoder"), "fp16"
    )


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")  # diffusers' own ControlNet of FLUX.1 imports by an old name
@pytest.mark.parametrize("name", ["flux-controlnet", "stable-diffusion-3-controlnet", "hunyuan", "kandinsky22"])
def test_one_of_each_kind_draws_what_diffusers_draws(name, monkeypatch):
    """A condition inside the network's time, one beside three texts, a graph for each size, and two stages."""
    monkeypatch.setattr(sys, "argv", ["trial", name, trial.FP32])
    found = trial.row(name)
    assert (found["state"], found["psnr"] > 90) == ("works", True)

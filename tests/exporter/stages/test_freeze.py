"""A bundle's recipe with what was measured written out; everything else of the recipe is as it was."""

import pytest
from ruamel.yaml import YAML

from engines.errors import BundleError
from engines.manifest import Quantized
from exporter.quantization.calibration import Calibration, Spec
from exporter.stages.freeze import written
from tests.engines import small

#: Comments, an order of its own, and every way of writing a pass.
RECIPE = """\
# What it is for.
model: {source: nowhere}
components:
  vae_decoder: {precision: fp32}
  unet:
    passes:
    - prune: {preset: bk-sdm-base} # smaller
    - quantize: OPTIONS
"""
KEPT = ("conv_in", "conv_out", "mid")


def bundle(folder, options, *, quantized=True, recipe=RECIPE):
    """One whose UNet kept three layers, of which `mid` has its weights in 8 bits."""
    (folder / "calibration").mkdir(parents=True)
    layers = {"mid": Spec(weights="int8"), "down": Spec(weights="int4")}
    Calibration(
        part="unet", digest="0", format="int4-weights", ranges="max", samples=("a",), layers=layers,
        kept=dict.fromkeys(KEPT, "because"),
    ).dump(folder / "calibration/unet.json")  # fmt: skip
    entry = Quantized(format="int4-weights", layers=5, quantized=2, kept=KEPT, calibration="calibration/unet.json")
    parts = dict(small.draft().parts)
    parts["unet"] = parts["unet"].model_copy(update={"quantized": entry if quantized else None})
    small.make(folder, parts=parts, recipe=recipe.replace("OPTIONS", options))
    return folder


def step(text):
    """Options of the last pass of the UNet."""
    (options,) = YAML(typ="safe").load(text)["components"]["unet"]["passes"][-1].values()
    return options


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("{format: int8, keep_above: 30}", {"format": "int8", "keep": [*KEPT]}),
        ("{format: int8, budget: 0.5, gate: size}", {"format": "int8", "gate": "size", "keep": [*KEPT]}),
        ("{format: int8, keep: [other]}", {"format": "int8", "keep": [*KEPT]}),
        ("{format: int8, rest: none}", {"format": "int8", "rest": "none", "keep": [*KEPT]}),
        (
            "{format: int4-weights, rest: int8-weights}",
            {"format": "int4-weights", "rest": "int8-weights", "keep": [*KEPT], "untouched": ["conv_in", "conv_out"]},
        ),
    ],
)
def test_what_was_chosen_stands_for_how_to_choose(tmp_path, options, found):
    assert step(written(bundle(tmp_path / "b", options))) == found


def test_the_rest_of_the_recipe_stays_with_its_comments(tmp_path):
    text = written(bundle(tmp_path / "b", "{format: int8}"))
    assert text.splitlines() == [*RECIPE.splitlines()[:7], "    - quantize: {format: int8, keep: [conv_in, conv_out, mid]}"]


def test_a_part_that_fell_back_is_left_as_it_was_asked(tmp_path):
    text = written(bundle(tmp_path / "b", "{format: int8, keep_above: 30}", quantized=False))
    assert text == RECIPE.replace("OPTIONS", "{format: int8, keep_above: 30}")


@pytest.mark.parametrize("recipe", ["model: {source: nowhere}\n", "model: {source: nowhere}\ncomponents:\n"])
def test_a_recipe_without_components_is_itself(tmp_path, recipe):
    assert written(bundle(tmp_path / "b", "", recipe=recipe)) == recipe


def test_what_is_no_bundle(tmp_path):
    with pytest.raises(BundleError, match="is missing"):
        written(tmp_path)

"""A ControlNet alone as `model.source`: what it steers comes from `model.base`."""

import diffusers
import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionXLPipeline

from engines.errors import RecipeError, UnsupportedError
from exporter.models import controls
from exporter.models.resolve import resolve
from exporter.recipe.schema import ModelOptions
from tools.coverage import conditioned


@pytest.fixture(scope="module")
def steered(tmp_path_factory):
    """A micro pipeline with a ControlNet, whole; and what it steers, without it."""
    folder = tmp_path_factory.mktemp("steered")
    whole = conditioned.MADE["stable-diffusion-xl-controlnet"]()
    whole.save_pretrained(folder / "whole")
    networks = {name: each for name, each in whole.components.items() if name != "controlnet" and each is not None}
    StableDiffusionXLPipeline(**networks, add_watermarker=False).save_pretrained(folder / "base")
    return folder


def test_it_is_the_pipeline_that_diffusers_saves_whole(steered):
    found = resolve(ModelOptions(source=str(steered / "whole/controlnet"), base=str(steered / "base")), steered)
    whole = resolve(ModelOptions(source=str(steered / "whole")), steered)
    assert found.configs["model_index"]["_class_name"] == whole.configs["model_index"]["_class_name"]
    for name in ("controlnet", "unet", "vae", "text_encoder"):
        ours, theirs = found.module(name).state_dict(), whole.module(name).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], value) for key, value in theirs.items())
    assert found.provenance == {"source": str(steered / "whole/controlnet"), "base": str(steered / "base")}


def test_a_variant_is_of_whichever_has_it(steered, tmp_path):
    network = diffusers.ControlNetModel.from_pretrained(steered / "whole/controlnet")
    network.save_pretrained(tmp_path / "edges")
    network.half().save_pretrained(tmp_path / "edges", variant="fp16")
    asked = {"source": str(tmp_path / "edges"), "base": str(steered / "base")}
    chosen = [resolve(ModelOptions(**asked, variant=each), steered).files["controlnet"] for each in (None, "fp16")]
    assert [file.name for (file,) in chosen] == [f"diffusion_pytorch_model.{each}safetensors" for each in ("", "fp16.")]
    with pytest.raises(RecipeError, match=r"no component of .*edges and .*base has weights of the variant 'int4'"):
        resolve(ModelOptions(**asked, variant="int4"), steered)


@pytest.mark.parametrize(
    ("base", "control", "pipeline"),
    [
        ("StableDiffusionPipeline", "ControlNetModel", "StableDiffusionControlNetPipeline"),
        ("StableDiffusionXLPipeline", "ControlNetUnionModel", "StableDiffusionXLControlNetUnionPipeline"),
        ("FluxPipeline", "FluxControlNetModel", "FluxControlNetPipeline"),
        ("StableDiffusion3Pipeline", "SD3ControlNetModel", "StableDiffusion3ControlNetPipeline"),
        ("QwenImagePipeline", "QwenImageControlNetModel", "QwenImageControlNetPipeline"),
    ],
)
def test_its_pipeline_is_called_as_diffusers_calls_it(steered, base, control, pipeline):
    assert issubclass(getattr(diffusers, pipeline), DiffusionPipeline)
    found = resolve(ModelOptions(source=str(steered / "base")), steered)
    index = {**found.configs["model_index"], "_class_name": base}
    plain = type(found)({**found.configs, "model_index": index}, found.provenance, found.files, found.folders)
    assert controls.is_control({"_class_name": control})
    made = controls.beside(plain, {"_class_name": control}, (), "it")
    assert made.configs["model_index"]["_class_name"] == pipeline
    assert made.configs["model_index"]["controlnet"] == ["diffusers", control]


def test_no_other_network_is_taken_for_one():
    assert not any(controls.is_control({"_class_name": each}) for each in ("UNet2DConditionModel", "ControlNetOutput", None))


def test_what_does_not_go_together(steered):
    own = str(steered / "whole/controlnet")
    with pytest.raises(RecipeError, match=r"model\.source: .* is a ControlNet, and model\.base has one already"):
        resolve(ModelOptions(source=own, base=str(steered / "whole")), steered)
    with pytest.raises(UnsupportedError, match=r"of a network alone a model\.base"):
        resolve(ModelOptions(source=own), steered)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"cross_attention_dim": 24}, r"its cross_attention_dim is 24, and that of model\.base's unet \d+; name the base"),
        ({"block_out_channels": [16, 16, 16]}, r"its block_out_channels is \[16, 16, 16\], and that of model\.base's unet \["),
        ({"layers_per_block": 3}, r"its layers_per_block is 3, and that"),
    ],
    ids=lambda value: next(iter(value), "") if isinstance(value, dict) else "",
)
def test_one_of_another_model_is_told_before_anything_runs(steered, changes, told):
    base = resolve(ModelOptions(source=str(steered / "base")), steered)
    own = resolve(ModelOptions(source=str(steered / "whole")), steered).configs["controlnet"]
    named = {"_class_name": "ControlNetModel"}
    assert controls.beside(base, {**own, **named}, (), "it").configs["controlnet"]["cross_attention_dim"]
    with pytest.raises(RecipeError, match=rf"model\.source: it is a ControlNet of another model: {told}"):
        controls.beside(base, {**own, **named, **changes}, (), "it")


def test_without_attention_the_width_of_texts_is_nothing_to_it(steered):
    base = resolve(ModelOptions(source=str(steered / "base")), steered)
    own = resolve(ModelOptions(source=str(steered / "whole")), steered).configs["controlnet"]
    plain = {"_class_name": "ControlNetModel", "cross_attention_dim": 24, "down_block_types": ["DownBlock2D"] * 3}
    assert controls.beside(base, {**own, **plain}, (), "it")

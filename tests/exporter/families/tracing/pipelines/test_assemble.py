"""A pipeline is put together from its folder as from_pretrained puts it together."""

import json
from contextlib import nullcontext
from pathlib import Path

import diffusers
import pytest
import torch

from engines.errors import MissingDependency, RecipeError, UnsupportedError
from exporter.families.tracing.pipelines import assemble
from exporter.models.resolve import resolve
from exporter.recipe.schema import ModelOptions, SamplerOptions
from tests.exporter.models import save_sdxl
from tools.coverage.models import MADE


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    MADE["pixart-sigma"]().save_pretrained(folder)
    return resolve(ModelOptions(source=str(folder)), Path())


def test_every_component_is_the_saved_one(checkpoint):
    found = assemble.pipeline(checkpoint, SamplerOptions(steps=(2,)), None, "fp32")
    wanted = diffusers.PixArtSigmaPipeline.from_pretrained(checkpoint.provenance["source"])
    for name in ("text_encoder", "transformer", "vae"):
        state = getattr(found, name).state_dict()
        for key, value in getattr(wanted, name).state_dict().items():
            assert torch.equal(state[key], value), f"{name}.{key}"
    assert found.tokenizer("a cat").input_ids == wanted.tokenizer("a cat").input_ids
    assert found.scheduler.config == wanted.scheduler.config


def test_networks_that_are_not_wanted_take_no_memory_and_the_sampler_is_the_recipe_s(checkpoint):
    sampler = SamplerOptions(steps=(2,), scheduler="DDIMScheduler", config={"timestep_spacing": "trailing"})
    found = assemble.pipeline(checkpoint, sampler, ("vae",), "bf16")
    assert {value.device.type for value in found.transformer.parameters()} == {"meta"}
    assert {value.dtype for value in found.vae.parameters()} == {torch.bfloat16}
    assert isinstance(found.scheduler, diffusers.DDIMScheduler)
    assert found.scheduler.config.timestep_spacing == "trailing"
    with pytest.raises(RecipeError, match="no scheduler named 'DDMIScheduler'"):
        assemble.pipeline(checkpoint, SamplerOptions(steps=(2,), scheduler="DDMIScheduler"), (), "fp32")


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (
            ["diffusers", "ControlNetModel"],
            r"names controlnet \(a ControlNetModel\), and there is no folder controlnet\.\n  Copy",
        ),
        ([None, None], ""),
        (["diffusers", None], ""),
    ],
)
def test_a_component_that_is_named_and_not_there_is_told(tmp_path, entry, told):
    index = save_sdxl(tmp_path / "model") / "model_index.json"
    named = {"_class_name": "StableDiffusionXLControlNetPipeline", "controlnet": entry}
    index.write_text(json.dumps(json.loads(index.read_text()) | named))
    checkpoint, sampler = resolve(ModelOptions(source=str(tmp_path / "model")), Path()), SamplerOptions(steps=(2,))
    with pytest.raises(UnsupportedError, match=told) if told else nullcontext():
        found = assemble.pipeline(checkpoint, sampler, (), "fp32")
        assert found.controlnet is None


def test_a_list_that_is_an_argument_is_no_component(tmp_path):
    MADE["krea2"]().save_pretrained(tmp_path)
    found = assemble.pipeline(resolve(ModelOptions(source=str(tmp_path)), Path()), SamplerOptions(steps=(2,)), (), "fp32")
    assert found.text_encoder_select_layers == (1, 2)


def test_a_pipeline_that_lacks_a_library_is_told(checkpoint, monkeypatch):
    def undefined(*_, **__):
        raise NameError("name 'Some' is not defined", name="SomeProcessor")

    monkeypatch.setattr(diffusers.PixArtSigmaPipeline, "register_modules", undefined)
    with pytest.raises(UnsupportedError, match="PixArtSigmaPipeline cannot be made here: diffusers has no SomeProcessor"):
        assemble.pipeline(checkpoint, SamplerOptions(steps=(2,)), (), "fp32")


def test_a_pipeline_whose_library_is_missing_says_what_to_install(tmp_path, monkeypatch):
    class Kept:
        _backends = ("torch", "sentencepieces")

    MADE["pixart-sigma"]().save_pretrained(tmp_path)
    monkeypatch.setattr(diffusers, "PixArtSigmaPipeline", Kept)
    with pytest.raises(MissingDependency, match=r"PixArtSigmaPipeline needs sentencepieces, .*\n  pip install sentencepieces"):
        assemble.kind_of(resolve(ModelOptions(source=str(tmp_path)), Path()))

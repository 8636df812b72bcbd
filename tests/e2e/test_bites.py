"""The check bites: each of these wrongs must fail it, and be blamed on the right part and stage."""

import contextlib
import json
import shutil

import numpy as np
import onnx_ir as ir
import pytest

from engines import bundle as format_
from engines.bundle import Bundle
from engines.errors import ParityError
from exporter import build as build_module
from exporter.build import build, check
from exporter.families.unets import text, wrappers
from exporter.recipe.schema import Recipe
from exporter.schedulers import compile_sampler
from exporter.stages.plan import Plan
from exporter.stages.store import Store
from tests.e2e.conftest import silent

pytestmark = [pytest.mark.timeout(1200), pytest.mark.long]


def first_failure(verdicts):
    return next((verdict.part, verdict.stage) for verdict in verdicts if not verdict.passed)


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Build in this process, where the patches are."""
    monkeypatch.setattr(build_module, "ahead", lambda *_: contextlib.nullcontext())


def rebuilt(built, recipe, tmp_path, *stages):
    """Build for processors, with these stages (verb, subject's first word) forgotten; the verdicts of the rejected bundle."""
    shutil.copytree(built.store, tmp_path / "store")
    store, recipe = Store(tmp_path / "store"), Recipe.load(recipe)
    for stage in Plan(recipe).stages:
        if (stage.verb, stage.subject.partition(",")[0]) in stages:
            shutil.rmtree(tmp_path / "store" / "entries" / str(stage.key))
    for entry in (tmp_path / "store" / "entries").iterdir():  # no digest knows that the code is another
        if json.loads((entry / "entry.json").read_text())["stage"] == "check":
            shutil.rmtree(entry)
    with pytest.raises(ParityError) as raised:
        build(recipe, tmp_path / "out", store, silent)
    assert not (tmp_path / "out").exists()
    return Bundle.open(tmp_path / "out.rejected").manifest.verdicts, str(raised.value)


def test_a_weight_tensor_off_by_one_percent(built, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(built.path, damaged)
    opened = Bundle.open(damaged)
    graph = next(iter(opened.manifest.parts["unet"].onnx.values())).files[0]
    model = ir.external_data.load_to_model(ir.load(damaged / graph))
    name, tensor = max(model.graph.initializers.items(), key=lambda item: item[1].const_value.size)
    tensor.const_value = ir.tensor((tensor.const_value.numpy() * np.float32(1.01)).copy(), name=name)
    for file in damaged.glob(f"{graph}*"):
        file.unlink()
    ir.save(model, damaged / graph, external_data="unet.onnx.data")
    format_.write(damaged, format_.draft(opened.manifest))
    assert first_failure(check(damaged, "onnxruntime")) == ("unet", "passes → onnx")


def test_two_conditioning_inputs_swapped(built, processors, tmp_path, monkeypatch):
    right = wrappers.DenoiserXL.forward

    def swapped(self, latent, timestep, states, states_2, pooled, scale=None):
        return right(self, latent, timestep, states.flip(1), states_2.flip(1), pooled, scale)

    monkeypatch.setattr(wrappers.DenoiserXL, "forward", swapped)
    verdicts, text = rebuilt(built, processors, tmp_path, ("measure", "unet"), ("export", "unet"), ("engine", "unet"))
    assert first_failure(verdicts) == ("unet", "source → passes")
    assert "FAIL" in text


def test_the_wrong_hidden_layer(built, processors, tmp_path, monkeypatch):
    right = text.TextEncoder.__init__

    def last(self, encoder, *, penultimate, **more):  # noqa: ARG001 - what is got wrong
        right(self, encoder, penultimate=False, **more)

    monkeypatch.setattr(text.TextEncoder, "__init__", last)
    stages = [(verb, "text_encoder") for verb in ("measure", "export", "engine")]
    verdicts, _ = rebuilt(built, processors, tmp_path, *stages)
    assert first_failure(verdicts) == ("text_encoder", "source → passes")
    assert {verdict.part for verdict in verdicts if not verdict.passed} == {"text_encoder", "end to end"}


def test_the_wrong_timestep_spacing(built, processors, tmp_path, monkeypatch):
    right = compile_sampler.compile_sampler

    def leading(name, config, *args, **more):
        return right(name, {**config, "timestep_spacing": "leading"}, *args, **more)

    monkeypatch.setattr(compile_sampler, "compile_sampler", leading)
    verdicts, text = rebuilt(built, processors, tmp_path, ("compile", "4 steps"))
    assert first_failure(verdicts) == ("sampler", "source → table")
    assert "times" in text

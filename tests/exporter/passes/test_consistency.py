"""Latent consistency: guidance becomes an input or goes into the weights, and LCM's sampler plays the result."""

import numpy as np
import pytest
import torch
from diffusers import LCMScheduler, UNet2DConditionModel

from engines.errors import RecipeError, UnsupportedError
from exporter import build
from exporter.passes.consistency import Consistency
from exporter.recipe.schema import Recipe
from exporter.stages.plan import Plan
from exporter.stages.store import Store
from exporter.training import trainer
from exporter.training.objectives.consistency import ConsistencyObjective, steered
from tests.exporter.lessons import learns, rows, train

EMBEDDED = {"mode": "embedded", "scale": 3.0}


def taught(text, data, sampler=None, **changes):
    options = {"data": str(data), "steps": 5, "batch": 8, "learning_rate": 1e-3, "guidance": [1.0, 5.0], "width": 8}
    known = {"scheduler": "LCMScheduler", "config": {}, "guidance": EMBEDDED}
    return learns(text, {"consistency": options | changes}, **(known | (sampler or {})))


def test_guidance_becomes_an_input(text, data, tmp_path):
    folder = train(taught(text, data, steps=12, batch=24), tmp_path)
    curve = rows(folder)
    assert np.mean([row["loss"] for row in curve[-4:]]) < 0.8 * np.mean([row["loss"] for row in curve[:4]])
    network = UNet2DConditionModel.from_pretrained(folder)
    assert network.config.time_cond_proj_dim == 8
    assert network.time_embedding.cond_proj.weight.abs().max() > 0


def test_at_first_it_has_no_effect(tiny_sdxl):
    from exporter.models.resolve import resolve
    from exporter.recipe.schema import ModelOptions

    before = resolve(ModelOptions(source=str(tiny_sdxl)), tiny_sdxl).module("unet")

    class Part:
        network, module = before, torch.nn.Module()

        def replacing(self, network):
            self.network = network
            return self

    inputs = torch.randn(1, 4, 16, 16), torch.tensor([5.0]), torch.randn(1, 7, 40)
    added = {"text_embeds": torch.randn(1, 24), "time_ids": torch.randn(1, 6)}
    after = steered(Consistency(data="d", steps=1, width=8), Part()).network
    with torch.no_grad():
        want = before(*inputs, added_cond_kwargs=added).sample
        got = after(*inputs, added_cond_kwargs=added, timestep_cond=torch.randn(1, 8)).sample
    assert torch.allclose(got, want, atol=1e-5)


def test_guidance_may_go_into_the_weights(text, data, tmp_path):
    recipe = taught(text, data, {"guidance": {"mode": "none"}}, guidance=3.0)
    assert UNet2DConditionModel.from_pretrained(train(recipe, tmp_path)).config.time_cond_proj_dim is None


@pytest.mark.parametrize(
    ("sampler", "changes", "told"),
    [
        ({"guidance": {"mode": "classifier_free", "scale": 3.0}}, {}, "guidance is an input of this model"),
        ({"guidance": EMBEDDED}, {"guidance": 3.0}, "this model has no input for it"),
        ({"scheduler": "EulerDiscreteScheduler"}, {}, "needs LCMScheduler"),
        ({}, {"guidance": [5.0, 1.0]}, r"\[5.0, 1.0\] must rise"),
    ],
)
def test_its_sampler(text, data, sampler, changes, told):
    with pytest.raises(RecipeError, match=told):
        Plan(taught(text, data, sampler, **changes)).refuse()


def test_a_killed_training_goes_on_as_if_it_had_not_been(text, data, tmp_path, monkeypatch):
    recipe = taught(text, data, checkpoint_every=2)
    whole = train(recipe, tmp_path / "whole")
    step = trainer.Training._step

    def killed(self, number):
        if number == 3:
            raise KeyboardInterrupt
        return step(self, number)

    monkeypatch.setattr(trainer.Training, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "cut")
    monkeypatch.setattr(trainer.Training, "_step", step)
    assert rows(train(recipe, tmp_path / "cut")) == rows(whole)


def test_boundary_and_times_are_those_of_the_scheduler(text, data, tmp_path, monkeypatch):
    seen = []
    call = ConsistencyObjective.__call__

    def saw(self, model, latent, times, *more):
        seen.append(times)
        return call(self, model, latent, times, *more)

    monkeypatch.setattr(ConsistencyObjective, "__call__", saw)
    train(taught(text, data), tmp_path)
    scheduler = LCMScheduler(original_inference_steps=50)
    scheduler.set_timesteps(50)
    assert set(torch.cat(seen).tolist()) <= set(scheduler.timesteps.tolist())
    skip, out = scheduler.get_scalings_for_boundary_condition_discrete(torch.tensor(19.0))
    scaled = 10.0 * 19.0
    assert skip == pytest.approx(0.25 / (scaled**2 + 0.25))
    assert out == pytest.approx(scaled / (scaled**2 + 0.25) ** 0.5)


@pytest.mark.slow
def test_it_builds_and_is_held_to_its_own_pipeline(text, data, tmp_path):
    recipe = taught(text, data)
    recipe = Recipe.parse(recipe.text, "taught", overrides=[*recipe_overrides(recipe), "targets=[onnxruntime]"])
    bundle, verdicts = build.build(recipe, tmp_path / "bundle", Store(tmp_path / "store"), lambda *_, **__: None)
    assert all(verdict.passed for verdict in verdicts)
    assert bundle.manifest.guidance.mode == "embedded"


def recipe_overrides(recipe):
    import json

    return [
        f"components.unet.passes={json.dumps(list(recipe.components['unet'].passes))}",
        f"sampler={recipe.sampler.model_dump_json()}",
    ]


def test_an_input_for_guidance_is_what_unets_have():
    with pytest.raises(UnsupportedError, match="UNet2DConditionModel alone, and this network is SD3Transformer2DModel"):
        Consistency(data="d", steps=1).config({"_class_name": "SD3Transformer2DModel"})
    assert Consistency(data="d", steps=1, guidance=3.0).config({"_class_name": "SD3Transformer2DModel"})

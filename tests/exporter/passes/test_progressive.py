"""Rounds of halving: what is learned, how a killed one goes on, what is refused."""

import json

import numpy as np
import pytest

from engines.errors import RecipeError
from exporter.stages.plan import Plan
from exporter.training import trainer
from tests.exporter.lessons import learns, rows, train


def taught(text, data, sampler=None, **changes):
    options = {"data": str(data), "steps": 5, "batch": 8, "learning_rate": 1e-3, "grid": [8, 4, 2], "checkpoint_every": 2}
    return learns(text, {"progressive": options | changes}, **(sampler or {}))


def test_every_round_has_its_losses_and_its_own_teacher(text, data, tmp_path):
    folder = train(taught(text, data, guidance=3.0, ema=0.5), tmp_path)
    curve = rows(folder)
    assert [row["round"] for row in curve] == [1] * 5 + [2] * 5
    found = json.loads((folder / "metadata.json").read_text())
    assert [(each["from"], each["to"]) for each in found["metadata"]["progressive"]["rounds"]] == [(8, 4), (4, 2)]
    assert found["notes"] == [
        note for note in found["notes"] if note.startswith("unet: progressive: 8 → 4 → 2 steps, guidance 3")
    ]


def test_the_loss_falls(text, data, tmp_path):
    curve = rows(train(taught(text, data, grid=[4, 2], steps=12, batch=24, weighting="none", guidance=3.0), tmp_path))
    assert np.mean([row["loss"] for row in curve[-4:]]) < 0.8 * np.mean([row["loss"] for row in curve[:4]])


def test_as_many_steps_as_the_teacher_have_nothing_to_learn_but_guidance(text, data, tmp_path):
    alone, guided = (
        rows(train(taught(text, data, {"steps": [4]}, grid=[4, 4], steps=1, guidance=scale), tmp_path))[0]["loss"]
        for scale in (None, 3.0)
    )
    assert alone < 1e-6
    assert guided > 100 * alone


@pytest.mark.parametrize("killed_at", [3, 7], ids=["first round", "second round"])
def test_a_killed_training_goes_on_as_if_it_had_not_been(text, data, tmp_path, monkeypatch, killed_at):
    recipe = taught(text, data)
    whole = train(recipe, tmp_path / "whole")
    step, calls = trainer.Training._step, []

    def killed(self, number):
        calls.append(number)
        if len(calls) == killed_at + 1:
            raise KeyboardInterrupt
        return step(self, number)

    monkeypatch.setattr(trainer.Training, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "cut")
    monkeypatch.setattr(trainer.Training, "_step", step)
    resumed = train(recipe, tmp_path / "cut")
    assert rows(resumed) == rows(whole)
    name = "diffusion_pytorch_model.safetensors"
    assert (resumed / name).read_bytes() == (whole / name).read_bytes()


def test_what_cannot_be(text, data):
    with pytest.raises(RecipeError, match="grid: 8 is not a multiple of 3"):
        taught(text, data, grid=[8, 3])
    with pytest.raises(RecipeError, match="takes no guidance"):
        Plan(taught(text, data, {"guidance": {"mode": "classifier_free", "scale": 2.0}}))

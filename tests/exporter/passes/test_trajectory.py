"""A student of few steps arrives where its guided teacher does, and its sampler is held to that."""

import json

import numpy as np
import pytest

from engines.errors import RecipeError, UnsupportedError
from exporter.models import architectures
from exporter.passes.trajectory import Trajectory
from exporter.stages.plan import Plan
from exporter.training import trainer
from exporter.training.noise_schedule import Schedule
from tests.exporter.lessons import learns, rows, train


def taught(text, data, sampler=None, **changes):
    options = {"data": str(data), "steps": 10, "batch": 8, "learning_rate": 1e-3, "to": 2, "teacher_steps": 4, "count": 12}
    return learns(text, {"trajectory": options | {"guidance": 3.0} | changes}, **(sampler or {}))


@pytest.mark.parametrize("weights", [{"step": 1}, {"step": 0, "end": 1}], ids=["step", "end"])
def test_the_loss_falls(text, data, tmp_path, weights):
    folder = train(taught(text, data, weights=weights, weighting="none", batch=12), tmp_path)
    curve = rows(folder)
    assert set(curve[0]) == {"step", "loss", "end" if "end" in weights else "step"} | {"step"}
    assert np.mean([row["loss"] for row in curve[-3:]]) < 0.8 * curve[0]["loss"]


def test_a_student_that_may_take_the_teachers_steps_has_nothing_to_learn(text, data, tmp_path):
    same = {"to": 4, "guidance": 1.0, "steps": 1, "weights": {"step": 1, "end": 1}}
    (row,) = rows(train(taught(text, data, {"steps": [4]}, **same), tmp_path))
    assert row["loss"] < 1e-5


def test_the_teacher_answers_in_the_precision_of_the_training(text, data, tmp_path):
    train(taught(text, data), tmp_path)
    train(taught(text, data, mixed_precision="bf16"), tmp_path)
    full, half = (np.load(path) for path in sorted(tmp_path.rglob("paths.npy"), key=lambda path: path.stat().st_mtime_ns))
    apart = np.square(full - half).mean(axis=(0, 2, 3, 4))
    assert apart[0] == 0  # the same noise
    assert 0 < apart[-1] < 0.1 * np.square(full[:, -1]).mean()


def test_another_prediction_is_for_the_sampler_to_read(text, data, tmp_path):
    config = {"timestep_spacing": "trailing", "prediction_type": "v_prediction"}
    recipe = taught(text, data, {"config": config}, prediction="v_prediction")
    found = json.loads((train(recipe, tmp_path) / "metadata.json").read_text())
    assert found["metadata"]["trajectory"]["prediction"] == "v_prediction"
    assert Plan(recipe).passes.source.scheduler().config.prediction_type == "epsilon"
    with pytest.raises(RecipeError, match=r"prediction_type is 'epsilon', but the pass trajectory makes it 'v_prediction'"):
        Plan(taught(text, data, prediction="v_prediction"))


@pytest.mark.parametrize(
    ("sampler", "told"),
    [
        ({"guidance": {"mode": "classifier_free", "scale": 3.0}}, "sampler.guidance.scale: 3, but .* takes no guidance"),
        ({"scheduler": "UniPCMultistepScheduler"}, "needs EulerDiscreteScheduler or DDIMScheduler"),
        ({"config": {"timestep_spacing": "leading"}}, "needs 'trailing'"),
    ],
)
def test_its_sampler(text, data, sampler, told):
    with pytest.raises(RecipeError, match=told):
        Plan(taught(text, data, sampler))


def test_another_number_of_steps_is_noted(text, data):
    assert any("made for 2 steps" in note for note in Plan(taught(text, data, {"steps": [3]})).pairing.notes)


def test_leaps_of_unequal_length(text, data, tmp_path):
    leaps = {"leaps": [3, 1], "guidance": 1.0, "steps": 1}
    times = {"timesteps": [999, 249]}
    folder = train(taught(text, data, times, **leaps), tmp_path)
    assert json.loads((folder / "metadata.json").read_text())["metadata"]["trajectory"]["times"] == [999, 249]
    (path,) = tmp_path.rglob("paths.npy")
    known = np.load(path)
    train(taught(text, data, {"steps": [4]}, to=4, guidance=1.0, steps=1), tmp_path)
    (other,) = set(tmp_path.rglob("paths.npy")) - {path}
    assert np.array_equal(known, np.load(other)[:, [0, 3, 4]])
    with pytest.raises(RecipeError, match=r"timesteps: null, but the pass trajectory teaches leaps from \[999, 249\]; write"):
        Plan(taught(text, data, **leaps))
    with pytest.raises(RecipeError, match=r"timesteps: \[999, 499\], but"):
        Plan(taught(text, data, {"timesteps": [999, 499]}, **leaps))


def test_trajectories_are_played_once_for_all_trainings(text, data):
    def keys(recipe):
        return {stage.verb: stage.key.digest for stage in Plan(recipe).stages if stage.verb in {"play", "pass"}}

    one = keys(taught(text, data))
    assert keys(taught(text, data, learning_rate=1e-4))["play"] == one["play"]
    assert keys(taught(text, data, learning_rate=1e-4))["pass"] != one["pass"]
    assert keys(taught(text, data, guidance=2.0))["play"] != one["play"]


def test_what_cannot_be(text, data):
    with pytest.raises(RecipeError, match="teacher_steps 5 is not a multiple of to 2"):
        taught(text, data, teacher_steps=5)
    with pytest.raises(RecipeError, match=r"leaps \[3, 2\] are 2 steps over 5, and not to 2 over teacher_steps 4"):
        taught(text, data, leaps=[3, 2])
    with pytest.raises(UnsupportedError, match="takes guidance as an input"):
        Trajectory(data="d", steps=1).config(architectures.configs("lcm-dreamshaper-v7")["unet"])
    with pytest.raises(UnsupportedError, match="trajectory: FlowMatchEulerDiscreteScheduler is a flow"):
        Schedule({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "trajectory")


def test_trainings_follow_each_other(text, data, tmp_path, monkeypatch):
    short = {"data": str(data), "batch": 4, "checkpoint_every": 1}
    leap = {"to": 2, "teacher_steps": 4, "count": 6, "guidance": 3.0}
    recipe = learns(
        text,
        {"prune": {"blocks": {"mid_block": None}}},
        {"distill": short | {"steps": 2}},
        {"trajectory": short | leap | {"steps": 3}},
    )
    whole = train(recipe, tmp_path / "whole")
    step, calls = trainer.Training._step, []

    def killed(self, number):
        calls.append(self._options.verb)
        if calls.count("trajectory") == 2:
            raise KeyboardInterrupt
        return step(self, number)

    monkeypatch.setattr(trainer.Training, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "cut")
    monkeypatch.setattr(trainer.Training, "_step", lambda self, number: calls.append(self._options.verb) or step(self, number))
    resumed = train(recipe, tmp_path / "cut")
    assert calls == ["distill"] * 2 + ["trajectory"] * 4
    assert rows(resumed) == rows(whole)
    stages = {f"{stage.verb} {stage.subject}": stage for stage in Plan(recipe).stages}
    assert stages["encode unet, distill"].key != stages["encode unet, trajectory"].key  # another empty prompt, without guidance
    assert Plan(recipe).passes.summaries("unet")[-1] == "trajectory: 4 → 2 steps, guidance 3, 3 steps of training"

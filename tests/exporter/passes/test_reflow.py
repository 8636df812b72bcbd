"""Pairs of the teacher's own noise and picture are learned; the sampler stays the model's."""

import numpy as np
import pytest

from engines.errors import RecipeError
from exporter.stages.plan import Plan
from tests.exporter.lessons import learns, rows, train


def taught(text, data, sampler=None, **changes):
    options = {
        "data": str(data),
        "steps": 12,
        "batch": 12,
        "learning_rate": 1e-3,
        "teacher_steps": 3,
        "count": 12,
        "guidance": 3.0,
    }
    return learns(text, {"reflow": options | changes}, **(sampler or {}))


def test_the_loss_falls(text, data, tmp_path):
    curve = rows(train(taught(text, data), tmp_path))
    assert set(curve[0]) == {"step", "loss"}
    assert np.mean([row["loss"] for row in curve[-3:]]) < 0.9 * curve[0]["loss"]


def test_guidance_is_in_the_weights(text, data):
    with pytest.raises(RecipeError, match=r"sampler.guidance.scale: 5, but .* takes a scale of at most 1.5"):
        Plan(taught(text, data, {"guidance": {"mode": "classifier_free", "scale": 5.0}}))


def test_pictures_do_not_come_without_captions(text, data):
    with pytest.raises(RecipeError, match="must be at most"):
        taught(text, data, empty=0.1)

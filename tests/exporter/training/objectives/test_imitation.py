"""Task, output and feature loss, each by its weight."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from exporter.training.objectives import features
from exporter.training.objectives.imitation import Imitation
from exporter.training.options import LossWeights
from tests.exporter.lessons import read, rows, train


def test_relative_features_weigh_the_same_however_large_and_many_they_are(text, tmp_path):
    found = {}
    for kind in ("resnet", "cross_attention"):
        for error in ("summed", "relative"):
            found[kind, error] = rows(train(read(text, features=kind, feature_error=error, steps=1), tmp_path))[0]
    assert found["resnet", "summed"]["output"] == found["resnet", "relative"]["output"]
    # The teacher itself has an error of 0, and a student that gives zeros one of 1; a cut is not far from these.
    assert all(0 < found[kind, "relative"]["feature"] < 2 for kind in ("resnet", "cross_attention"))
    assert found["resnet", "summed"]["feature"] > 10 * found["resnet", "relative"]["feature"]


def test_relative_errors_by_hand(text, tmp_path, monkeypatch):
    monkeypatch.setattr(
        features.Watch, "take", lambda self: [torch.tensor([3.0, 1.0]), torch.tensor([[20.0]])]
        if self is taken[0] else [torch.tensor([1.0, 1.0]), torch.tensor([[10.0]])],
    )  # fmt: skip
    taken = []
    original = features.Watch.__init__
    monkeypatch.setattr(features.Watch, "__init__", lambda self, *given: (taken.append(self), original(self, *given))[1])
    relative = rows(train(read(text, feature_error="relative", steps=1), tmp_path))[0]["feature"]
    taken.clear()
    summed = rows(train(read(text, steps=1), tmp_path))[0]["feature"]
    assert relative == pytest.approx((2.0 / 1.0 + 100 / 100) / 2)
    assert summed == pytest.approx(2.0 + 100)


def test_weights_choose_the_losses(text, tmp_path):
    curve = rows(train(read(text, weights={"task": 0, "feature": 0}), tmp_path))
    assert set(curve[0]) == {"step", "loss", "task", "output"}
    assert all(row["loss"] == row["output"] for row in curve)


class Wrapped(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.net = nn.Linear(2, 2, bias=False)
        self.net.weight.data.fill_(weight)

    def forward(self, x):
        return self.net(x)


def imitation(**weights):
    """A teacher that gives twice the sum, a student that gives it once, without data and without pairs."""
    made = Imitation.__new__(Imitation)
    made._weights, made._relative, made._teacher = LossWeights(**weights), False, Wrapped(2.0)
    made.metadata = {"features": [["net", "net"]] if weights.get("feature") else []}
    student = Wrapped(1.0)
    names = ["net"] if weights.get("feature") else []
    made._watches = [features.Watch(each, names) for each in (student, made._teacher)]
    return made, student


@pytest.mark.parametrize(
    ("weights", "loss"),
    [
        ({"task": 1, "output": 0, "feature": 0}, 9.0),
        ({"task": 0, "output": 1, "feature": 0}, 4.0),
        ({"task": 0, "output": 0, "feature": 1}, 4.0),
        ({"task": 0.5, "output": 2, "feature": 10}, 0.5 * 9 + 2 * 4 + 10 * 4),
    ],
)
def test_losses_by_hand(weights, loss):
    """Student 2, teacher 4, target 5 everywhere."""
    made, student = imitation(**weights)
    found = made(student, torch.full((3, 2), 5.0), torch.ones(3, 2))
    assert found["loss"].item() == pytest.approx(loss)
    assert found["task"].item() == 9.0
    assert ("output" in found, "feature" in found) == (bool(weights["output"]), bool(weights["feature"]))
    found["loss"].backward()
    assert made._teacher.net.weight.grad is None


def test_the_end_takes_the_hooks_off():
    made, student = imitation(feature=1)
    assert student.net._forward_hooks
    made.end()
    assert not student.net._forward_hooks
    assert not made._teacher.net._forward_hooks


def test_draws_come_with_the_target_first():
    made, _ = imitation()
    made._draws = SimpleNamespace(batch=lambda share: (f"noisy {share}", "times", ["one", "two"], "target"))
    assert made.draw(3) == ("target", "noisy 3", "times", "one", "two")

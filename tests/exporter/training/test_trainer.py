"""The loop of a training, on a processor as it would go on an accelerator."""

import pytest
import torch

from engines.errors import DivergenceError
from exporter.training import trainer
from exporter.training.objectives import imitation
from tests.exporter.lessons import read, rows, train


def test_losses_that_are_fetched_late_are_the_same_and_name_the_same_step(text, tmp_path, monkeypatch):
    at_once = train(read(text, steps=5, checkpoint_every=4), tmp_path / "at once")
    monkeypatch.setattr(trainer, "_fetch", lambda _device: 50)  # as on an accelerator
    later = train(read(text, steps=5, checkpoint_every=4), tmp_path / "later")
    assert rows(later) == rows(at_once)
    draw = imitation.Imitation.draw
    broken = lambda self, share: tuple(each * float("nan") if share == 5 else each for each in draw(self, share))  # noqa: E731
    monkeypatch.setattr(imitation.Imitation, "draw", broken)
    with pytest.raises(DivergenceError, match=r"at step 6 the loss is nan.* checkpoint after step 4 is kept"):
        train(read(text, steps=8, checkpoint_every=4), tmp_path / "broken")


def test_a_step_that_is_captured_is_the_same_step(text, tmp_path, monkeypatch):
    recipe = read(text, steps=5, ema=0.9, schedule="cosine", warmup=2, checkpoint_every=2)
    usual = train(recipe, tmp_path / "usual")
    made = trainer.Training.__init__

    def init(self, *arguments):
        made(self, *arguments)
        self._capture = lambda *drawn: self._whole(*drawn).clone()  # the processor has no graphs

    monkeypatch.setattr(trainer.Training, "__init__", init)
    captured = train(recipe, tmp_path / "captured")
    for own, other in zip(rows(captured), rows(usual), strict=True):
        assert own == pytest.approx(other, rel=1e-4)
    weights = [_weights(folder) for folder in (captured, usual)]
    for name, value in weights[0].items():
        assert torch.allclose(value, weights[1][name], atol=1e-5), name


def _weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "diffusion_pytorch_model.safetensors")

"""The loop of a training, on a processor as it would go on an accelerator."""

import pytest

from engines.errors import DivergenceError, RecipeError, UnsupportedError
from exporter.passes import _imitate, _teach
from tests.exporter.lessons import read, rows, train


def test_losses_that_are_fetched_late_are_the_same_and_name_the_same_step(text, tmp_path, monkeypatch):
    at_once = train(read(text, steps=5, checkpoint_every=4), tmp_path / "at once")
    monkeypatch.setattr(_teach, "_fetch", lambda _device: 50)  # as on an accelerator
    later = train(read(text, steps=5, checkpoint_every=4), tmp_path / "later")
    assert rows(later) == rows(at_once)
    draw = _imitate.Imitation.draw
    broken = lambda self, share: tuple(each * float("nan") if share == 5 else each for each in draw(self, share))  # noqa: E731
    monkeypatch.setattr(_imitate.Imitation, "draw", broken)
    with pytest.raises(DivergenceError, match=r"at step 6 the loss is nan.* checkpoint after step 4 is kept"):
        train(read(text, steps=8, checkpoint_every=4), tmp_path / "broken")


@pytest.mark.parametrize(
    ("change", "told"),
    [({"replay": True}, "distill.replay: .* trains on cpu"), ({"replay": True, "accumulate": 2}, "does not go with accumulate")],
)
def test_a_graph_of_a_pass_needs_a_gpu_and_one_pass_a_step(text, tmp_path, change, told):
    with pytest.raises((UnsupportedError, RecipeError), match=told):
        train(read(text, **change), tmp_path)

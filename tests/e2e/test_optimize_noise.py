"""The noise of a real bundle climbs a real reward in torch, and the bundle's own engines draw what was found."""

import numpy as np
import pytest

from exporter.noise.ascent import AscentOptions
from exporter.noise.optimize import optimize
from exporter.reward import folder as reward
from exporter.stages.store import Store
from tests.e2e.conftest import silent
from tests.exporter import models

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]


def test_what_torch_finds_the_engines_draw(built, tmp_path):
    models.save_dual_encoder(tmp_path / "pair")
    reward.make(str(tmp_path / "pair"), tmp_path / "judge", ["onnxruntime"], processor=None, revision=None)
    out = tmp_path / "noise.npy"
    asked = AscentOptions(iterations=8, weight=1.0)
    found = optimize(built.path, tmp_path / "judge", ["a red circle", "the sea"], asked, out, Store(built.store), silent, seed=7)
    assert (found.rewards.max(0) > found.rewards[0]).all()
    # The run time rounds pictures to bytes, which a reward of random weights sees: far less than what was gained in all.
    assert np.abs(found.replayed - found.rewards.max(0)).max() < (found.rewards.max(0) - found.rewards[0]).sum()
    assert np.load(out).shape == found.noise.shape == (2, 4, 8, 8)

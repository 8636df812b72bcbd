"""Rows in, rows out: each picture is that of its prompt and seed, whatever it is drawn with."""

import io

import numpy as np
import pytest
from PIL import Image

from engines.picture_set import drawer
from engines.picture_set.drawer import Drawer
from engines.pipeline import Pipeline
from tests.engines import small
from tests.engines.test_real_engines import graphs


@pytest.fixture
def bundle(tmp_path):
    return small.make(tmp_path / "bundle", graphs=graphs())


def test_a_shard_is_drawn_as_the_bundle_draws(bundle, monkeypatch):
    monkeypatch.setattr(drawer, "_AT_ONCE", 2)
    row = Drawer(str(bundle.folder), None, {"steps": 2})({"number": 3, "prompts": ["a", "b", "a"], "seed": 7})
    assert (row["number"], row["error"]) == (3, "")
    with Pipeline.open(bundle.folder) as pipeline:
        for place, (text, picture) in enumerate(zip(["a", "b", "a"], row["pictures"], strict=True)):
            (wanted,) = pipeline.generate(text, seed=7 + place, steps=2)
            np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(picture))), np.asarray(wanted))


def test_what_cannot_be_drawn_comes_back_in_words(bundle):
    row = Drawer(str(bundle.folder), None, {"steps": 3})({"number": 0, "prompts": ["a"], "seed": 0})
    assert row["pictures"] == []
    assert "no sampler of 3" in row["error"]

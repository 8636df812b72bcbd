"""Every picture stands beside what steered it, with its prompt below."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tools.demo import draw_conditioned
from tools.demo.edges import edges
from tools.demo.scenes import draw
from tools.demo.score_conditioned import STRENGTH


@pytest.mark.parametrize("control", [True, False])
def test_pairs_of_what_is_given_and_what_is_drawn(monkeypatch, control):
    class Bundle:
        guidance = SimpleNamespace(scales=[SimpleNamespace(name=STRENGTH if control else "image_guidance_scale")])
        bundle = SimpleNamespace(manifest=SimpleNamespace(guidance=guidance))

        def generate(self, prompts, *, seed, steps, inputs):
            assert (seed, steps, len(inputs["image"])) == (5, None, len(prompts))
            return [Image.new("RGB", (64, 64), (index, 0, 0)) for index in range(len(prompts))]

    monkeypatch.setattr(draw_conditioned.Pipeline, "open", lambda _: nullcontext(Bundle()))
    pictures, told = draw_conditioned.rows("bundle", 5)
    asked = draw_conditioned.EDGES if control else draw_conditioned.EDITS
    assert len(asked) == 4
    assert told[::2] == ["edges" if control else "a picture"] * 4
    assert told[1::2] == [text for _, text in asked]
    for index, (scene, _) in enumerate(asked):
        given = draw(scene)
        assert np.array_equal(pictures[2 * index], edges(given) if control else given)
        assert (pictures[2 * index + 1] == (index, 0, 0)).all()

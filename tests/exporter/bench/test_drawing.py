import numpy as np
import pytest
from PIL import Image

from engines.errors import UnsupportedError
from exporter.bench import drawing, run
from exporter.sweep import diff
from tests.engines import conditioned, small


@pytest.mark.parametrize("count", [0, 1, 8, 9, 20])
def test_every_prompt_has_its_own_seed_whatever_the_groups(count):
    prompts = [f"a red square {number}" for number in range(count)]
    calls = list(drawing.groups(prompts, 5))
    assert [text for texts, _ in calls for text in texts] == prompts
    assert [seed for _, seeds in calls for seed in seeds] == list(range(5, 5 + count))
    assert all(len(texts) == len(seeds) <= 8 for texts, seeds in calls)


def test_pixels_are_red_green_and_blue():
    pictures = [Image.new("RGB", (3, 2), "red"), Image.new("L", (3, 2), 7)]
    found = drawing.pixels(pictures)
    assert (found.shape, found.dtype) == ((2, 2, 3, 3), np.uint8)
    assert [tuple(each[0, 0]) for each in found] == [(255, 0, 0), (7, 7, 7)]


def test_who_has_prompts_alone_refuses_a_bundle_that_needs_a_picture(tmp_path):
    optional = {name: entry for name, entry in conditioned.INPUTS.items() if entry.default is not None}
    drawing.require_prompts_alone(optional, "a sweep")
    path = small.make(tmp_path / "edges", **conditioned.changes()).folder
    plain = small.make(tmp_path / "plain").folder
    told = r"draws from prompts alone, and this model needs hint too\.\n.* t2iexport generate, with --input hint=…"
    for compare in (
        lambda: run.bench(path, cold=False),
        lambda: run.bench(plain, [str(path)], cold=False),
        lambda: diff.diff(plain, path, rounds=1),
    ):
        with pytest.raises(UnsupportedError, match=told):
            compare()

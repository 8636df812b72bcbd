"""Noise that was optimised is written as the bundle takes it, and the bundle draws what was found with it."""

import numpy as np
import pytest
import torch

from engines.errors import UnsupportedError
from engines.images import noises
from engines.pipeline import Pipeline
from exporter.noise import optimize as module
from exporter.noise.ascent import AscentOptions
from exporter.noise.optimize import NoiseSearch, optimize
from tests.engines import judge, small
from tests.engines.test_real_engines import graphs
from tests.exporter.noise import torch_parts

pytest.importorskip("onnxruntime")
PROMPTS = ["a red square", "sea sea"]


class Bright:
    """What `tests.engines.judge` computes, in torch."""

    device = "cpu"

    def __init__(self, _folder):
        pass

    def rate(self, prompts):
        ids = {"a red square": [1, 4, 5, 7, 2, 0], "sea sea": [1, 11, 11, 2, 0, 0]}
        means = torch.tensor([np.mean(ids[each]) for each in prompts])
        return lambda images: images.mean((1, 2, 3)) * means


@pytest.fixture
def found_here(tmp_path, monkeypatch):
    bundle = small.make(tmp_path / "small", graphs=graphs())
    judge.make(tmp_path / "bright")
    monkeypatch.setattr(module, "modules", lambda *_: torch_parts.parts(bundle))
    monkeypatch.setattr(module, "TorchReward", Bright)
    return bundle.folder, tmp_path / "bright"


def test_the_file_replays_on_the_bundle(found_here, tmp_path):
    told = []
    options = AscentOptions(iterations=6, weight=1.0)
    out, arguments = tmp_path / "noise.npy", (options, tmp_path / "noise.npy", None, None)
    found = optimize(*found_here, PROMPTS, *arguments, lambda *seen: told.append(seen), seed=3, guidance_scale=2.0)
    assert np.array_equal(noises.read(out), found.noise)
    assert found.noise.shape == (2, 4, 4, 4)
    assert found.rewards.shape == (7, 2)
    assert (found.rewards.max(0) > found.rewards[0] + 0.1).all()
    assert found.replayed == pytest.approx(found.rewards.max(0), abs=0.05)
    assert found.engine.startswith("onnxruntime ")
    assert [number for number, _ in told] == [*range(7), *range(7)]
    with Pipeline.open(found_here[0]) as pipeline:
        begun = [np.asarray(each).mean() for each in pipeline.generate(PROMPTS, seed=3, guidance_scale=2.0)]
        ended = [np.asarray(each).mean() for each in pipeline.generate(PROMPTS, noise=found.noise, guidance_scale=2.0)]
    assert (np.array(ended) > begun).all()


def test_pictures_of_one_call_are_those_that_each_is_alone(found_here):
    search, asked = NoiseSearch(*found_here, None, None), AscentOptions(iterations=3)
    both, _ = search.optimize(PROMPTS, asked, seed=3)
    alone = [search.optimize([prompt], asked, seed=3 + index)[0] for index, prompt in enumerate(PROMPTS)]
    assert both == pytest.approx(np.concatenate(alone, axis=1), abs=1e-5)


def test_what_cannot_be_written_is_refused_before_the_work(found_here, tmp_path):
    with pytest.raises(UnsupportedError, match=r"must end in \.npy"):
        optimize(*found_here, PROMPTS, AscentOptions(), tmp_path / "noise.png", None, None)

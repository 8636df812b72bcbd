"""A bundle that is one graph from prompt to picture."""

import numpy as np
import pytest

from engines.errors import UnsupportedError
from engines.parallel.picard import Picard
from engines.pipeline import Pipeline
from tests.engines import small


def whole(calls):
    """A function in the place of the engine: its picture tells what it was given."""

    def run(inputs):
        calls.append({name: array.shape for name, array in inputs.items()})
        said = inputs["tokenizer_ids"].mean(axis=(1, 2)) * inputs["guidance_scale"] / 50
        latent = inputs["noise"].sum(axis=1) + said[:, None, None, None]
        picture = latent.transpose(0, 2, 3, 1)[..., :3].repeat(small.FACTOR, 1).repeat(small.FACTOR, 2)
        return {"image": (picture / 8 + 0.5).clip(0, 1).astype(np.float32)}

    return run


@pytest.fixture
def played(tmp_path):
    calls = []
    bundle = small.make(tmp_path / "fused", **small.fused())
    return Pipeline(bundle, {"pipeline_2": whole(calls)}), calls


def test_one_call_a_batch_with_all_its_noise(played):
    pipeline, calls = played
    pictures = pipeline.generate(["a red sea", "a blue circle", "the sea"], seed=3)
    assert [call["noise"] for call in calls] == [(2, 2, 4, 4, 4), (1, 2, 4, 4, 4)]
    assert calls[0]["tokenizer_ids"] == (2, 2, small.LENGTH)
    assert calls[0]["guidance_scale"] == (2,)
    (alone,) = pipeline.generate(["a blue circle"], seed=4)
    assert np.array_equal(pictures[1], alone)
    assert alone.info["steps"] == "2"


def test_prompt_scale_and_noise_reach_the_graph(played):
    pipeline, _ = played
    first, *others = (
        np.asarray(pipeline.generate(prompt, **wish)[0])
        for prompt, wish in (("a red sea", {}), ("a", {}), ("a red sea", {"guidance_scale": 30.0}), ("a red sea", {"seed": 1}))
    )
    assert all(not np.array_equal(first, other) for other in others)


def test_what_needs_steps_says_what_to_build(played):
    pipeline, _ = played
    with pytest.raises(UnsupportedError, match=r"one graph from prompt to picture.*pipeline: stepped"):
        pipeline.encode(["a"])
    with pytest.raises(UnsupportedError, match=r"pipeline: stepped"):
        pipeline.generate("a", parallel=Picard(window=2))
    with pytest.raises(UnsupportedError, match="no sampler of 3 steps"):
        pipeline.generate("a", steps=3)


def test_nan_is_not_drawn(tmp_path):
    bundle = small.make(tmp_path / "fused", **small.fused())

    def broken(inputs):
        return {"image": np.full((len(inputs["noise"]), 32, 32, 3), np.nan, np.float32)}

    with pytest.raises(UnsupportedError, match="pipeline_2 returned NaN"):
        Pipeline(bundle, {"pipeline_2": broken}).generate("a")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda parts: parts.pop("pipeline_2") and parts.update(pipeline_3=small.fused()["parts"]["pipeline_2"]), "each number"),
        (lambda parts: parts.update(unet=small.draft().parts["unet"]), "whole pipelines only"),
    ],
)
def test_a_fused_draft_is_whole(change, told):
    changes = small.fused()
    change(changes["parts"])
    with pytest.raises(ValueError, match=told):
        small.draft(**changes)

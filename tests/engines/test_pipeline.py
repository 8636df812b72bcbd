import numpy as np
import pytest
from PIL import Image

from engines.errors import UnsupportedError
from engines.pipeline import Pipeline
from engines.samplers import Cancelled
from engines.signature import Range
from tests.engines import small


def pixels(pictures):
    return [np.asarray(made) for made in pictures]


def test_one_prompt_one_picture(pipeline):
    (made,) = pipeline.generate("a red square")
    assert isinstance(made, Image.Image)
    assert (made.size, made.mode) == ((32, 32), "RGB")
    assert made.info["prompt"] == "a red square"
    assert made.info["seed"] == "0"
    assert made.info["digest"] == pipeline.bundle.manifest.model


def test_no_prompt_no_picture(pipeline):
    assert pipeline.generate([]) == []


def test_width_and_height_are_what_they_say(pipeline):
    assert pipeline.generate("a", height=64, width=32)[0].size == (32, 64)


def test_a_picture_does_not_depend_on_its_batch(pipeline):
    prompts = ["a red square", "the blue sea", "a circle", "a", "red"]
    together = pixels(pipeline.generate(prompts, seed=7))
    for index, prompt in enumerate(prompts):
        (alone,) = pipeline.generate(prompt, seed=7 + index)
        np.testing.assert_array_equal(together[index], np.asarray(alone))
        assert alone.info["seed"] == str(7 + index)


def test_a_batch_is_split_at_what_each_part_takes(bundle):
    calls = []
    Pipeline(bundle, small.networks(bundle, calls)).generate(["a"] * 5)
    assert [batch for name, batch in calls if name == "text_encoder"] == [2, 2, 1]
    assert [batch for name, batch in calls if name == "unet"] == [2, 2, 1] * 2
    assert [batch for name, batch in calls if name == "vae_decoder"] == [2, 2, 1]


def test_an_engine_with_a_fixed_batch_is_filled_up(tmp_path, monkeypatch):
    monkeypatch.setattr(small, "BATCH", Range(min=4, typical=4, max=4, multiple=2))
    bundle, calls = small.make(tmp_path / "b"), []
    fixed = Pipeline(bundle, small.networks(bundle, calls)).generate(["a", "red"] * 3)
    assert {batch for _, batch in calls} == {4}
    monkeypatch.undo()
    free = small.make(tmp_path / "c")
    for one, other in zip(fixed, Pipeline(free, small.networks(free)).generate(["a", "red"] * 3), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_seed_prompt_steering_and_steps_matter(pipeline):
    def one(prompt="a red square", **wishes):
        return np.asarray(pipeline.generate(prompt, height=64, width=32, **wishes)[0])

    first = one()
    for other in (
        one(seed=1),
        one("the blue sea"),
        one(negative_prompt="sea"),
        one(guidance_scale=7.5),
        one(steps=4),
    ):
        assert (first != other).any()
    np.testing.assert_array_equal(first, one())


def test_the_negative_branch_comes_first(pipeline):
    embeds = pipeline.encode(["sea"], "red")["prompt_embeds"]
    alone = [pipeline.encode([text], text)["prompt_embeds"][0, 0] for text in ("red", "sea")]
    np.testing.assert_array_equal(embeds[0], alone)


def test_given_noise_makes_the_picture_that_its_seed_makes(pipeline):
    noise = pipeline.seeded(5, 2, 32, 32)()
    for form in (noise, [noise], noise[None], iter([noise])):
        made = pipeline.generate(["a", "red"], noise=form)
        for one, other in zip(made, pipeline.generate(["a", "red"], seed=5), strict=True):
            np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    assert "seed" not in made[0].info
    assert made[0].info["noise_sha256"] != made[1].info["noise_sha256"]


def test_noise_is_the_same_for_ever(pipeline):
    first = pipeline.seeded(1, 1, 32, 32)()
    np.testing.assert_allclose(first[0, 0, 0], NOISE, rtol=1e-6)


NOISE = [1.09168911, 0.4558267, 0.70178974, 0.28494337]


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        ([], "more noise than was given"),
        (np.zeros((1, 4, 4, 3), np.float32), r"noise 1 must be float32 \[1, 4, 4, 4\]"),
        (np.zeros((1, 4, 4, 4)), "got float64"),
    ],
)
def test_noise_that_does_not_fit(pipeline, noise, message):
    with pytest.raises(UnsupportedError, match=message):
        pipeline.generate("a", noise=noise)


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"steps": 3}, r"no sampler of 3 steps.*there are: 2, 4 at 64x32.*--set sampler\.steps=\[3\]"),
        ({"steps": 4}, "there are: 2, 4 at 64x32"),
        ({"height": 40}, "height 40: .*16 to 64 in steps of 16 pixels"),
        ({"width": 80}, "width 80: .*16 to 64 in steps of 16 pixels"),
        ({"width": 0}, "width 0"),
        ({"seed": -2}, r"seed -2 is out of range\. Use 0 to \d+, or -1 for a random one"),
        ({"seed": 2**64}, "Use 0 to"),
        ({"guidance_scale": float("nan")}, "guidance scale nan"),
    ],
)
def test_a_wish_that_cannot_be_had_says_what_can(pipeline, wishes, message):
    with pytest.raises(UnsupportedError, match=message):
        pipeline.generate("a", **wishes)


@pytest.mark.parametrize("mode", ["none", "embedded"])
def test_guidance_that_is_not_there(tmp_path, mode):
    bundle = small.make(tmp_path / "b", mode=mode)
    pipeline = Pipeline(bundle, small.networks(bundle))
    (made,) = pipeline.generate("a")
    assert ("guidance_scale" in made.info) == (mode == "embedded")
    with pytest.raises(UnsupportedError, match="negative prompt has no effect"):
        pipeline.generate("a", negative_prompt="red")
    if mode == "none":
        with pytest.raises(UnsupportedError, match="without guidance"):
            pipeline.generate("a", guidance_scale=2.0)
    else:
        pipeline.generate("a", guidance_scale=2.0)


def test_steps_are_told(pipeline):
    seen = []
    pipeline.generate(["a", "red", "sea"], on_step=lambda step: seen.append((step.index, step.total, step.latent.shape)))
    assert seen == [(1, 2, (3, 4, 4, 4)), (2, 2, (3, 4, 4, 4))]


def test_what_on_step_raises_ends_the_sampling(bundle):
    calls = []

    def enough(_):
        raise Cancelled

    with pytest.raises(Cancelled):
        Pipeline(bundle, small.networks(bundle, calls)).generate("a", on_step=enough)
    assert [name for name, _ in calls] == ["text_encoder", "unet"]


def test_a_broken_decoder_is_named(bundle):
    networks = small.networks(bundle)
    networks["vae_decoder"] = lambda inputs: {"image": np.full((len(inputs["latent"]), 32, 32, 3), np.nan, np.float32)}
    with pytest.raises(UnsupportedError, match="decoder returned NaN"):
        Pipeline(bundle, networks).generate("a")


@pytest.mark.parametrize("wish", ["adaptive:relative=1,absolute=1", "ode:relative=0.1", "predictor_corrector:steps=5"])
def test_a_sampler_that_chooses_its_own_steps(pipeline, bundle, wish):
    calls = []
    counting = Pipeline(bundle, small.networks(bundle, calls))
    together = counting.generate(["a red square", "the blue sea", "a circle"], seed=7, sampler=wish)
    counts = [int(made.info["evaluations"]) for made in together]
    assert sum(counts) <= sum(batch for name, batch in calls if name == "unet")
    for index, prompt in enumerate(["a red square", "the blue sea", "a circle"]):
        (alone,) = pipeline.generate(prompt, seed=7 + index, sampler=wish)
        np.testing.assert_array_equal(np.asarray(together[index]), np.asarray(alone))
        assert alone.info["evaluations"] == together[index].info["evaluations"]
    assert together[0].info["sampler"] == wish
    assert "steps" not in together[0].info


def test_evaluations_of_a_compiled_sampler_are_told_too(pipeline):
    (made,) = pipeline.generate("a", steps=2)
    assert (made.info["steps"], made.info["evaluations"]) == ("2", "2")


def test_steps_and_a_sampler_are_not_both_asked_for(pipeline):
    with pytest.raises(UnsupportedError, match=r"steps 2 are those of a compiled sampler; 'ode' has its own"):
        pipeline.generate("a", steps=2, sampler="ode")


def test_a_bundle_of_before_has_no_process_and_plays_its_tables(tmp_path):
    old = small.make(tmp_path / "old", process=None)
    assert old.manifest.process is None
    pipeline = Pipeline(old, small.networks(old))
    pipeline.generate("a")
    with pytest.raises(UnsupportedError, match="holds no noise process"):
        pipeline.generate("a", sampler="adaptive")

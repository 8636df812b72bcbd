import itertools

import numpy as np
import pytest

from engines.errors import UnsupportedError
from engines.samplers import adaptive
from engines.samplers.adaptive import Adaptive
from tests.engines.samplers import gaussians


def solved(pictures=4, seed=0, prediction="epsilon", **options):
    process = gaussians.process(prediction)
    model, noise = gaussians.Model(process, pictures), gaussians.draws(process, pictures, seed)
    return Adaptive(process=process, **options).play(model, lambda: next(noise)), model


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_mean_and_covariance(prediction):
    found, model = solved(150, prediction=prediction, relative=0.02, absolute=0.02)
    size, chance = gaussians.off(found)
    assert found.dtype == np.float32
    assert chance < 4, size
    assert np.median(model.evaluations) < 120


def test_a_single_point_is_not_bent_by_what_is_rejected():
    """Where a picture is two numbers its error depends on its noise; drawing anew after a rejection moves the mean by 0.06."""
    process = gaussians.process()
    noise = gaussians.draws(process, 64)

    class Single(gaussians.Model):
        def __call__(self, latent, timestep, _which=None):
            whole = np.resize(latent[:, :, 0, 0], (-(-len(latent) // 64) * 64, 2))
            clock = np.resize(self.process.clock(np.float64(timestep)), len(whole))
            return gaussians.noise(whole.astype(np.float64), clock)[: len(latent), :, None, None].astype(np.float32)

    model = Single(process, 1)
    first = gaussians.points(next(noise))[:, :, None, None]
    draws = itertools.chain([first], gaussians.standard(first.shape, 1))
    found = Adaptive(process=process, relative=0.05, absolute=0.05).play(model, lambda: next(draws))[:, :, 0, 0]
    spread = np.sqrt(np.diag(gaussians.COVARIANCE) / len(found))
    assert (np.abs(found.mean(0) - gaussians.MEAN) < 4 * spread).all()


def test_a_smaller_tolerance_takes_more_evaluations_and_is_closer():
    counts, errors = [], []
    for tolerance in (0.4, 0.1, 0.025):
        found, model = solved(100, relative=tolerance, absolute=tolerance)
        counts.append(np.median(model.evaluations))
        errors.append(gaussians.off(found)[0])
    assert counts[0] < counts[1] / 1.5 < counts[2] / 2
    assert errors[0] > errors[1] > errors[2]


def test_a_picture_does_not_depend_on_its_batch():
    process = gaussians.process()
    noise = list(itertools.islice(gaussians.draws(process, 3), 200))
    together, several = Adaptive(process=process), gaussians.Model(process, 3)
    found = together.play(several, iter(noise).__next__)
    for index in range(3):
        one = gaussians.Model(process, 1)
        own = iter([array[index : index + 1] for array in noise])
        np.testing.assert_allclose(together.play(one, own.__next__)[0], found[index], atol=1e-5)
        assert one.evaluations == several.evaluations[index]


def test_finished_pictures_drop_out():
    _, model = solved(8, relative=0.1, absolute=0.1)
    assert len(set(model.evaluations)) > 1
    assert min(len(which) for which in model.asked[:-1]) < 8
    assert len(model.asked[-1]) == 8  # the last noise is taken out of all at once


def test_a_rejected_step_starts_where_the_drift_is_known(monkeypatch):
    monkeypatch.setattr(adaptive, "_FIRST", 1.0)  # too long for anything
    seen = []
    process, told = gaussians.process(), []
    model, noise = gaussians.Model(process, 1), gaussians.draws(process, 1)
    Adaptive(process=process, relative=0.01, absolute=0.01).play(
        lambda latent, time, which: seen.append(float(time[0])) or model(latent, time, which), noise.__next__, told.append
    )
    assert seen[0] == pytest.approx(999)
    assert seen[1] == pytest.approx(0, abs=1e-3)
    assert seen[0] not in seen[1:]
    assert len(seen) < 2 * len(told) + 1
    assert told[0].total is None
    assert [step.index for step in told] == list(range(1, len(told) + 1))
    assert told[-1].preview.shape == told[-1].latent.shape == (1, *gaussians.SHAPE)


def test_the_path_of_a_rejected_step_is_divided():
    path, whole = adaptive._Path(), np.array([2.0, -1.0])
    assert path.fit(3.0, 0.5) == pytest.approx(3 * np.expm1(0.5))
    np.testing.assert_allclose(path.increment(4.0, whole), 2 * whole)
    half = path.fit(1.0, np.log(5) / 2)  # log(1 + 4/1), in two
    first = path.increment(half, np.array([0.3, 0.1]))
    np.testing.assert_array_equal(path.increment(half, np.array([9.0, 9.0])), first)  # tried again, the same path
    path.pass_by()
    np.testing.assert_allclose(first + path.increment(path.fit(1 + half, 9.0), np.zeros(2)), 2 * whole)


def test_a_bridge_has_the_right_variance():
    random, firsts, seconds = np.random.default_rng(0), [], []
    for _ in range(4000):
        path = adaptive._Path()
        path.increment(4.0, random.standard_normal(1))
        firsts.append(path.increment(1.0, random.standard_normal(1))[0])
        path.pass_by()
        seconds.append(path.increment(3.0, random.standard_normal(1))[0])
    assert np.var(firsts) == pytest.approx(1, abs=0.1)
    assert np.var(seconds) == pytest.approx(3, abs=0.3)
    assert abs(np.corrcoef(firsts, seconds)[0, 1]) < 0.06


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_broken_denoiser_is_named_with_step_and_picture(bad):
    process = gaussians.process()
    model, noise = gaussians.Model(process, 3), gaussians.draws(process, 3)

    def broken(latent, time, which):
        answer = model(latent, time, which)
        answer[(which == 1) & (time < 500)] *= bad
        return answer

    with pytest.raises(UnsupportedError, match=r"step \d+: the denoiser returned NaN .* picture 2 \(t = 4\d\d.*fp16"):
        Adaptive(process=process).play(broken, noise.__next__)


def test_what_cannot_be_reached_is_said_and_does_not_go_on_for_ever():
    with pytest.raises(UnsupportedError, match=r"picture 1 is not finished after 30 steps, \d+ of.*\d% of the way.*relative"):
        solved(2, relative=1e-9, absolute=1e-9, max_steps=30)


def test_another_shape_and_a_given_latent_are_refused():
    process = gaussians.process()
    noise = gaussians.draws(process, 2)
    with pytest.raises(UnsupportedError, match=r"step 1: the denoiser returned shape \[2, 2, 8\]; the latent has \[2, 2, 8, 8\]"):
        Adaptive(process=process).play(lambda latent, *_: latent[..., 0], noise.__next__)
    with pytest.raises(UnsupportedError, match="starts from noise alone"):
        Adaptive(process=process).play(None, noise.__next__, given={"image": np.zeros((2, *gaussians.SHAPE))})

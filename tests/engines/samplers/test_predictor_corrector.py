import itertools

import numpy as np
import pytest

from engines.errors import UnsupportedError
from engines.samplers.predictor_corrector import PredictorCorrector
from tests.engines.samplers import gaussians


def solved(pictures=4, prediction="epsilon", **options):
    process = gaussians.process(prediction)
    model, noise = gaussians.Model(process, pictures), gaussians.draws(process, pictures)
    return PredictorCorrector(process=process, **options).play(model, lambda: next(noise)), model


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("predictor", ["reverse_diffusion", "euler_maruyama", "ancestral"])
def test_mean_and_covariance(predictor, prediction):
    found, model = solved(100, prediction, steps=250, corrections=0, predictor=predictor)
    size, chance = gaussians.off(found)
    assert found.dtype == np.float32
    assert chance < 4, size
    assert set(model.evaluations) == {250}


def test_corrections_keep_mean_and_covariance():
    found, model = solved(100, steps=150, corrections=1, snr=0.1)
    size, chance = gaussians.off(found)
    assert chance < 4, size
    assert set(model.evaluations) == {300}


def test_corrections_mend_a_coarse_predictor():
    """A first noise that is far from the right one, forgotten by corrections and not without."""
    process = gaussians.process()

    def far(**options):
        shape = (60, *gaussians.SHAPE)
        noise = itertools.chain([np.full(shape, 3, np.float32)], gaussians.standard(shape))
        sampler = PredictorCorrector(process=process, steps=12, **options)
        return gaussians.off(sampler.play(gaussians.Model(process, 60), lambda: next(noise)))[0]

    assert far(corrections=4, snr=0.3) < far(corrections=0)


def test_a_picture_does_not_depend_on_its_batch():
    process = gaussians.process()
    noise = list(itertools.islice(gaussians.draws(process, 3), 30))
    sampler = PredictorCorrector(process=process, steps=10)
    found = sampler.play(gaussians.Model(process, 3), iter(noise).__next__)
    for index in range(3):
        own = iter([array[index : index + 1] for array in noise])
        alone = sampler.play(gaussians.Model(process, 1), own.__next__)
        np.testing.assert_allclose(alone[0], found[index], atol=1e-4)


def test_times_are_equally_apart_and_steps_are_told():
    process, times, told = gaussians.process(), [], []
    model, noise = gaussians.Model(process, 1), gaussians.draws(process, 1)
    PredictorCorrector(process=process, steps=4, corrections=0).play(
        lambda latent, time, which: times.append(time[0]) or model(latent, time, which), noise.__next__, told.append
    )
    np.testing.assert_allclose(times, [999, 666, 333, 0], atol=1e-3)
    assert [(step.index, step.total) for step in told] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert told[-1].preview.shape == told[-1].latent.shape


def test_a_broken_denoiser_is_named_with_its_step():
    process = gaussians.process()
    model, noise = gaussians.Model(process, 1), gaussians.draws(process, 1)
    with pytest.raises(UnsupportedError, match="step 3: the denoiser returned NaN"):
        PredictorCorrector(process=process, steps=4, corrections=0).play(
            lambda latent, time, which: model(latent, time, which) * (np.nan if time[0] < 500 else 1), noise.__next__
        )

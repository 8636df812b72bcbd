"""A table that corrects, and the proof that it does as diffusers."""

import diffusers
import numpy as np
import pytest
import torch

from engines.errors import UnsupportedError
from engines.sampler_ops import Draw, Eval, Scaled
from exporter.models.predictor_corrector import stepped
from exporter.schedulers import corrections
from exporter.schedulers.compile_sampler import compile_sampler
from exporter.schedulers.loop import Loop
from exporter.schedulers.trace import TOLERANCE

CONFIG = {"sigma_max": 5.0}


def test_own_corrections_are_diffusers_and_others_are_seen(monkeypatch):
    kind, loop = stepped(diffusers.ScoreSdeVeScheduler), Loop(3)
    assert corrections.own_share(diffusers.DDIMScheduler(), loop) == 0
    assert corrections.own_share(kind(), loop) < TOLERANCE
    monkeypatch.setattr(kind, "ratio_scaled", staticmethod(lambda value, over, under, power: value))  # noqa: ARG005
    assert corrections.own_share(kind(), loop) > 100 * TOLERANCE
    with pytest.raises(UnsupportedError, match="ScoreSdeVeScheduler is not a linear sampler: its table is"):
        compile_sampler("ScoreSdeVeScheduler", CONFIG, 3, 32, 32)


def test_the_table_plays_what_diffusers_pipeline_does():
    table = compile_sampler("ScoreSdeVeScheduler", CONFIG, 4, 32, 32)
    kinds = [type(op) for op in table.ops]
    assert (table.format, kinds.count(Scaled), kinds.count(Eval), kinds.count(Draw)) == (4, 8, 8, 9)
    noises = [np.random.default_rng(seed).standard_normal((1, 3, 8, 8), np.float32) for seed in range(9)]

    def model(latent, sigma):
        return ((np.tanh(latent) - latent) / sigma).astype(np.float32)

    waiting, drawn = iter(noises), iter(noises)
    played = table.play(lambda latent, time: model(latent, np.float32(time)), lambda: next(waiting))
    real = diffusers.ScoreSdeVeScheduler(**CONFIG)
    real.set_timesteps(4)
    real.set_sigmas(4)
    sample, mean = torch.from_numpy(next(drawn)) * real.init_noise_sigma, None

    def answered(method, *given):
        with corrections.InjectedNoise(lambda _: torch.from_numpy(next(drawn)), "it"):
            return method(*given)

    for index, time in enumerate(real.timesteps):
        sigma = float(real.sigmas[index])
        sample = answered(real.step_correct, torch.from_numpy(model(sample.numpy(), sigma)), sample).prev_sample
        result = answered(real.step_pred, torch.from_numpy(model(sample.numpy(), sigma)), time, sample)
        sample, mean = result.prev_sample, result.prev_sample_mean
    np.testing.assert_allclose(played, mean.numpy(), rtol=1e-4, atol=1e-4)


def test_a_model_of_another_scheduler_gives_no_scores():
    with pytest.raises(UnsupportedError, match=r"takes scores from its network, and the model's own scheduler is DDIMScheduler"):
        compile_sampler("ScoreSdeVeScheduler", {}, 3, 32, 32, own={"_class_name": "DDIMScheduler"})
    own = {"_class_name": "ScoreSdeVeScheduler", **CONFIG}
    assert compile_sampler("ScoreSdeVeScheduler", {}, 3, 32, 32, own=own).format == 4

"""Schedulers of a predictor and a corrector under one step: what diffusers' own pipeline does with them."""

import diffusers
import numpy as np
import pytest
import torch

from exporter.models.predictor_corrector import corrects, divided, scaled, stepped

KIND = diffusers.ScoreSdeVeScheduler


def test_which_classes_are_divided():
    assert divided(KIND)
    assert not divided(diffusers.DDIMScheduler)
    assert stepped(diffusers.DDIMScheduler) is diffusers.DDIMScheduler
    assert stepped(None) is None
    made = stepped(KIND)
    assert issubclass(made, KIND)
    assert (made.__name__, made is stepped(KIND), divided(made)) == ("ScoreSdeVeScheduler", True, False)
    assert corrects(made())
    assert not corrects(made(correct_steps=0))
    assert not corrects(KIND())


def test_it_is_told_a_noise_level_at_each_evaluation():
    real, made = KIND(correct_steps=2), stepped(KIND).from_config({"correct_steps": 2})
    made.set_timesteps(3)
    real.set_timesteps(3)
    real.set_sigmas(3)
    assert torch.equal(made.timesteps, real.sigmas.repeat_interleave(3))
    made.set_sigmas(3)  # as the pipeline calls it, which loops over the scheduler's own times
    assert torch.equal(made.timesteps, real.timesteps)
    assert torch.equal(made.discrete_sigmas, real.discrete_sigmas)


def pipeline_loop(scheduler, steps, sample, model):
    """As diffusers' pipeline_score_sde_ve.py."""
    scheduler.set_timesteps(steps)
    scheduler.set_sigmas(steps)
    generator, mean = torch.Generator().manual_seed(3), None
    for index, time in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[index] * torch.ones(len(sample))
        for _ in range(scheduler.config.correct_steps):
            sample = scheduler.step_correct(model(sample, sigma), sample, generator=generator).prev_sample
        output = scheduler.step_pred(model(sample, sigma), time, sample, generator=generator)
        sample, mean = output.prev_sample, output.prev_sample_mean
    return mean


def plain_loop(scheduler, steps, sample, model):
    """As every other pipeline."""
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(3)
    for sigma in scheduler.timesteps:
        told = sigma * torch.ones(len(sample))
        sample = scheduler.step(model(sample, told), sigma, sample, generator=generator).prev_sample
    return sample


@pytest.mark.parametrize("corrections", [0, 1, 2])
def test_either_loop_ends_where_diffusers_does(corrections):
    def model(latent, sigma):
        return (torch.tanh(latent) - latent) / sigma.reshape(-1, 1, 1, 1)

    noise = 5.0 * torch.from_numpy(np.random.default_rng(0).standard_normal((1, 3, 8, 8), np.float32))
    config = {"correct_steps": corrections, "sigma_max": 5.0}
    wanted = pipeline_loop(KIND(**config), 4, noise, model)
    assert wanted.std() > 0.1
    for loop in (pipeline_loop, plain_loop):
        found = loop(stepped(KIND)(**config), 4, noise, model)
        assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


def test_a_picture_is_scaled_by_its_own_norms():
    value, over, under = (torch.rand(2, 3, 4, 4) + 1 for _ in range(3))
    found = scaled(value, over, under, 2)
    assert torch.allclose(found[1], value[1] * (over[1].norm() / under[1].norm()) ** 2)
    assert torch.equal(scaled(value[:1], over[:1], under[:1], 2), found[:1])

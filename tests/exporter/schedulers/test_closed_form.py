"""On a Gaussian mixture, whose score is known, compiled samplers reach its mean and covariance, and converge in their order."""

import itertools

import numpy as np
import pytest

from engines.samplers.table import Eval
from exporter.schedulers.compile_sampler import compile_sampler
from exporter.schedulers.noise_schedule import compile_process
from tests.engines.samplers import gaussians

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
#: Equal steps in log(noise / signal), at times that are not rounded, to the same last level whatever the steps.
EVEN = {**SD, "use_exponential_sigmas": True}
#: DPM-Solver rounds its times, so here they are whole: 2000 of them, equally apart in log(noise / signal) from 0.03 to 14.
LEVELS = np.exp(np.linspace(np.log(0.03), np.log(14), 2000))
SIGNAL = 1 / (1 + LEVELS**2)
WHOLE = {
    "num_train_timesteps": 2000,
    "trained_betas": [float(beta) for beta in 1 - SIGNAL / np.concatenate([[1], SIGNAL[:-1]])],
    "timestep_spacing": "trailing",
    "final_sigmas_type": "sigma_min",
    "lower_order_final": False,
}
V = {"prediction_type": "v_prediction"}
DDIM = {**SD, "clip_sample": False, "set_alpha_to_one": False, "timestep_spacing": "trailing"}
ORDERS = {
    "euler": ("EulerDiscreteScheduler", {**EVEN, "final_sigmas_type": "sigma_min"}, 1, (30, 60, 120)),
    "ddim": ("DDIMScheduler", DDIM, 1, (40, 100, 200)),
    "heun": ("HeunDiscreteScheduler", EVEN, 2, (20, 40, 80)),
    "heun-v": ("HeunDiscreteScheduler", {**EVEN, **V}, 2, (20, 40, 80)),
    "dpm++2m": ("DPMSolverMultistepScheduler", WHOLE, 2, (10, 16, 20)),
    "dpm++2m-v": ("DPMSolverMultistepScheduler", {**WHOLE, **V}, 2, (10, 16, 20)),
    "dpm++3m": ("DPMSolverMultistepScheduler", {**WHOLE, "solver_order": 3}, 3, (10, 16, 20)),
}


def exact(process, table, noise):
    """Where the flow takes the table's own first latent: at the last level, and with the last noise taken out."""
    first = next(op for op in table.ops if isinstance(op, Eval))
    start, end = np.sqrt(np.expm1([process.noisy, process.clean]))
    y, slope = gaussians.flow(noise * first.row[0] * np.sqrt(1 + start**2), start, end, 800)
    return gaussians.latents(y), gaussians.latents(y - slope)


@pytest.mark.parametrize("case", ORDERS)
def test_order_of_convergence(case):
    name, config, wanted, sizes = ORDERS[case]
    process = compile_process(name, config)
    noise, model = next(gaussians.draws(process, 2)), gaussians.Model(process, 2)
    errors, goal = [], None
    for steps in sizes:
        table = compile_sampler(name, config, steps, 64, 64)
        goal = exact(process, table, noise)["heun" in case] if goal is None else goal
        errors.append(gaussians.size(table.play(model, lambda: noise) - goal))
    assert gaussians.order(sizes, errors) == pytest.approx(wanted, abs=0.2)


SAMPLED = {
    "ddim": ("DDIMScheduler", {**SD, "clip_sample": False}, 60),
    "euler-v": ("EulerDiscreteScheduler", {**EVEN, **V}, 80),
    "heun": ("HeunDiscreteScheduler", EVEN, 20),
    "dpm++2m": ("DPMSolverMultistepScheduler", EVEN, 30),
    "dpm++2m-v": ("DPMSolverMultistepScheduler", {**EVEN, **V}, 30),
    "ancestral": ("EulerAncestralDiscreteScheduler", {**SD, "timestep_spacing": "trailing"}, 100),
    "ddpm": ("DDPMScheduler", {**SD, "clip_sample": False}, 100),
}


@pytest.mark.parametrize("case", SAMPLED)
def test_mean_and_covariance(case):
    name, config, steps = SAMPLED[case]
    process, table = compile_process(name, config), compile_sampler(name, config, steps, 64, 64)
    first = next(op for op in table.ops if isinstance(op, Eval))
    noise = gaussians.draws(process, 40)
    start = next(noise) / np.float32(first.row[0])  # so that the model sees what is distributed as the mixture is there
    draws = itertools.chain([start], noise)
    found = table.play(gaussians.Model(process, 40), lambda: next(draws))
    size, chance = gaussians.off(found)
    assert chance < 4, size

"""A table is what the family's own pipeline makes of its scheduler, whatever the scheduler would do by itself."""

import diffusers
import numpy as np
import pytest
import torch

from engines.errors import RecipeError, UnsupportedError
from engines.samplers.table import Draw, Eval
from exporter.families import Driving
from exporter.schedulers.compile_sampler import compile_sampler
from exporter.schedulers.loop import InjectedNoise

# diffusers hands torch tensors to numpy, which numpy 2 warns about.
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ZERO_SNR = {**SD, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
#: Their first two steps are at one model time, so who is not told where to begin takes the second for the first.
TWICE = {
    "dpm++beta": ("DPMSolverMultistepScheduler", {**SD, "use_beta_sigmas": True}, 50),
    "euler-sigma-max": ("EulerDiscreteScheduler", {**SD, "use_karras_sigmas": True, "sigma_max": 29.2, "sigma_min": 0.03}, 12),
    "deis-beta": ("DEISMultistepScheduler", {**SD, "use_beta_sigmas": True}, 50),
    "sa-beta": ("SASolverScheduler", {**SD, "use_beta_sigmas": True}, 50),
    "singlestep-beta-50": ("DPMSolverSinglestepScheduler", {**SD, "use_beta_sigmas": True}, 50),
    "singlestep-beta-100": ("DPMSolverSinglestepScheduler", {**SD, "use_beta_sigmas": True}, 100),
}


def as_a_pipeline(scheduler, steps, noise, answer, draws):
    """Denoise as the pipelines of diffusers with a begin index do, in float32."""
    scheduler.set_timesteps(steps)
    scheduler.set_begin_index(0)
    latent = noise * scheduler.init_noise_sigma
    for time in scheduler.timesteps:
        output = answer(scheduler.scale_model_input(latent, time), time)
        with InjectedNoise(lambda _: torch.from_numpy(next(draws))):
            latent = scheduler.step(output, time, latent, return_dict=False)[0]
    return latent.numpy()


@pytest.mark.parametrize("case", TWICE)
def test_two_steps_at_one_time_are_what_the_pipeline_makes_of_them(case):
    name, config, steps = TWICE[case]
    table = compile_sampler(name, config, steps, 512, 512)
    times = [op.t for op in table.ops if isinstance(op, Eval)]
    assert times[0] == times[1]
    draws = np.random.Generator(np.random.Philox(3)).standard_normal((2 * steps, 1, 4, 6, 5), dtype=np.float32)
    scheduler = getattr(diffusers, name)(**config)
    answer = lambda latent, time: torch.tanh(latent) + float(time) / 1000  # noqa: E731
    wanted = as_a_pipeline(scheduler, steps, torch.from_numpy(draws[0].copy()), answer, iter(draws[1:]))
    mine = iter(draws)
    got = table.play(lambda latent, time: np.tanh(latent) + np.float32(time / 1000), lambda: next(mine))
    assert np.abs(got - wanted).max() < 1e-4 * np.abs(wanted).max()


def test_a_pipeline_that_does_not_say_where_to_begin_fails_as_diffusers_does():
    size_unknown = Driving("StableDiffusionPipeline", begins=False)
    name, config, steps = TWICE["dpm++beta"]
    with pytest.raises(
        UnsupportedError, match=r"IndexError.*\nIts first two steps are at one time.*StableDiffusionPipeline.*fails too"
    ):
        compile_sampler(name, config, steps, 512, 512, driving=size_unknown)
    told, same = compile_sampler(name, config, 20, 512, 512), compile_sampler(name, config, 20, 512, 512, driving=size_unknown)
    assert told.ops == same.ops


def test_eta_is_what_the_pipeline_says_unless_the_recipe_does():
    driving = Driving(step={"eta": 0.0})
    plain, drawn = (compile_sampler("TCDScheduler", SD, 4, 512, 512, driving=driving, step=step) for step in ({}, {"eta": 0.3}))
    assert [sum(isinstance(op, Draw) for op in table.ops) for table in (plain, drawn)] == [1, 4]
    assert compile_sampler("EulerDiscreteScheduler", SD, 2, 512, 512, driving=driving).ops


XL = Driving("StableDiffusionXLPipeline", needs=("init_noise_sigma", "scale_model_input"), step={"eta": 0.0})


def test_flow_matching_on_a_pipeline_that_cannot_drive_it_is_told_what_can():
    with pytest.raises(
        UnsupportedError, match=r"StableDiffusionXLPipeline, which reads its init_noise_sigma and .*flow_shift: 3}"
    ):
        compile_sampler("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, 4, 512, 512, driving=XL)
    ours = compile_sampler("UniPCMultistepScheduler", {**FLOW, "solver_order": 1}, 4, 512, 512, driving=XL)
    theirs = compile_sampler("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, 4, 512, 512)
    assert [type(op) for op in ours.ops] == [type(op) for op in theirs.ops]


def test_own_sigmas_are_diffusers_own():
    sigmas = (14.6, 5.0, 1.5, 0.4, 0.0)
    table = compile_sampler("EulerDiscreteScheduler", SD, 4, 512, 512, sigmas=sigmas)
    scheduler = diffusers.EulerDiscreteScheduler(**SD)
    scheduler.set_timesteps(sigmas=list(sigmas))
    assert [op.t for op in table.ops if isinstance(op, Eval)] == scheduler.timesteps.tolist()
    assert table.ops[1].row[0] == pytest.approx(1.0, abs=3e-3)  # sigma over sqrt(sigma² + 1), of sigma times the noise
    with pytest.raises(RecipeError, match=r"sampler.sigmas: 4 sigmas are 3 steps of EulerDiscreteScheduler, not 4, .*add 0\.0"):
        compile_sampler("EulerDiscreteScheduler", SD, 4, 512, 512, sigmas=sigmas[:4])


#: Playground 2.5's, and CosXL's: continuous v-prediction.
EDM = {
    "playground": ("EDMDPMSolverMultistepScheduler", {"sigma_max": 80.0, "sigma_min": 0.002, "solver_order": 2}),
    "cosxl": (
        "EDMEulerScheduler",
        {
            "sigma_max": 120.0,
            "sigma_min": 0.002,
            "sigma_data": 1.0,
            "prediction_type": "v_prediction",
            "sigma_schedule": "exponential",
        },
    ),
    "svd": (
        "EulerDiscreteScheduler",
        {
            "prediction_type": "v_prediction",
            "timestep_type": "continuous",
            "sigma_max": 700.0,
            "sigma_min": 0.002,
            "use_karras_sigmas": True,
        },
    ),
}


@pytest.mark.parametrize("case", EDM)
def test_edm_and_continuous_v_prediction_are_tables(case):
    name, config = EDM[case]
    table = compile_sampler(name, config, 10, 512, 512, driving=XL)
    assert table.provenance.deviation < 1e-6
    noise = torch.from_numpy(np.random.Generator(np.random.Philox(4)).standard_normal((1, 4, 6, 5), dtype=np.float32))
    wanted = as_a_pipeline(getattr(diffusers, name)(**config), 10, noise, lambda latent, _: torch.tanh(latent), iter(()))
    got = table.play(lambda latent, _: np.tanh(latent), noise.numpy)
    assert np.abs(got - wanted).max() < 1e-4 * config["sigma_max"]


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler"])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_rounding_of_a_schedule_of_zero_signal_is_not_taken_for_a_bend(name, steps):
    """It begins at sigma 4096, where float32 rounds 1.6e-4 of the result away."""
    table = compile_sampler(name, ZERO_SNR, steps, 512, 512)
    assert table.provenance.deviation < 1e-6
    if name == "EulerDiscreteScheduler":
        noise = torch.from_numpy(np.random.Generator(np.random.Philox(4)).standard_normal((1, 4, 6, 5), dtype=np.float32))
        wanted = as_a_pipeline(getattr(diffusers, name)(**ZERO_SNR), steps, noise, lambda latent, _: torch.tanh(latent), iter(()))
        got = table.play(lambda latent, _: np.tanh(latent), noise.numpy)
        assert np.abs(got - wanted).max() < 1e-3


def test_a_model_may_be_told_the_noises_level_and_shown_the_latent_unscaled():
    given = "EulerDiscreteScheduler", {"beta_schedule": "scaled_linear"}, 4, 512, 512
    usual, leveled = (compile_sampler(*given, driving=Driving(levels=levels)) for levels in (False, True))
    scheduler = diffusers.EulerDiscreteScheduler(beta_schedule="scaled_linear")
    scheduler.set_timesteps(4)
    told, times = ([op.t for op in table.ops if isinstance(op, Eval)] for table in (leveled, usual))
    np.testing.assert_allclose(told, scheduler.sigmas[:4], rtol=1e-6)
    np.testing.assert_allclose(times, scheduler.timesteps, rtol=1e-6)
    for op, same in zip(leveled.ops, usual.ops, strict=True):
        if isinstance(op, Eval):
            np.testing.assert_allclose(op.row, np.asarray(same.row) * (op.t**2 + 1) ** 0.5, rtol=1e-4)
    assert leveled.ops[-1] == usual.ops[-1]


def test_a_pipeline_may_start_from_more_noise_than_its_scheduler_says():
    config = {"shift": 3.0}
    usual, twice = (
        compile_sampler("FlowMatchEulerDiscreteScheduler", config, 4, 512, 512, driving=Driving(unit=unit)) for unit in (1.0, 2.0)
    )
    noise = np.random.default_rng(0).standard_normal((1, 4, 6, 5), np.float32)
    wanted = usual.play(lambda latent, _: np.tanh(latent), lambda: 2 * noise)
    drawn, plain = (table.play(lambda latent, _: np.tanh(latent), lambda: noise) for table in (twice, usual))
    np.testing.assert_allclose(drawn, wanted, rtol=1e-5, atol=1e-5)
    assert np.abs(drawn - plain).max() > 0.1

"""The preview in a table is the clean latent that diffusers' own scheduler says, or that its definition gives."""

import diffusers
import numpy as np
import pytest
import torch

from engines.samplers.table import Eval
from exporter.schedulers.compile_sampler import compile_sampler

# diffusers hands torch tensors to numpy, which numpy 2 warns about.
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SHAPE = (2, 4, 6, 5)
CASES = {
    "euler": ("EulerDiscreteScheduler", {**SD, "timestep_spacing": "trailing"}),
    "euler-v": ("EulerDiscreteScheduler", {**SD, "prediction_type": "v_prediction"}),
    "euler-karras": ("EulerDiscreteScheduler", {**SD, "use_karras_sigmas": True}),
    "ddim": ("DDIMScheduler", {**SD, "clip_sample": False}),
    "ddim-v": ("DDIMScheduler", {**SD, "clip_sample": False, "prediction_type": "v_prediction"}),
    "ddim-sample": ("DDIMScheduler", {**SD, "clip_sample": False, "prediction_type": "sample"}),
    "lcm": ("LCMScheduler", SD),
    "dpm++": ("DPMSolverMultistepScheduler", SD),
    "dpm++v": ("DPMSolverMultistepScheduler", {**SD, "prediction_type": "v_prediction"}),
    "dpm++sde": ("DPMSolverMultistepScheduler", {**SD, "algorithm_type": "sde-dpmsolver++"}),
    "unipc": ("UniPCMultistepScheduler", SD),
    "unipc-noise": ("UniPCMultistepScheduler", {**SD, "predict_x0": False, "final_sigmas_type": "sigma_min"}),
    "unipc-v": ("UniPCMultistepScheduler", {**SD, "prediction_type": "v_prediction"}),
    "deis": ("DEISMultistepScheduler", SD),
    "pndm": ("PNDMScheduler", {**SD, "skip_prk_steps": True}),
    "tcd": ("TCDScheduler", SD),
}


def answer(latent, time):
    return np.tanh(latent) + np.float32(time / 1000)


def previews(name, config, steps):
    """What a user of the table is told, step by step."""
    table, noise, told = compile_sampler(name, config, steps, 512, 512), np.random.default_rng(3), []
    table.play(answer, lambda: noise.standard_normal(SHAPE, np.float32), told.append)
    return told


@pytest.mark.parametrize("case", CASES)
def test_a_preview_is_the_clean_latent_by_definition(case):
    """The model sees sqrt(a) * clean + sqrt(1 - a) * noise; what it answers says which part is clean."""
    name, config = CASES[case]
    scheduler = getattr(diffusers, name)(**config)
    told = previews(name, config, 8)
    assert len(told) >= 8
    for step, op in zip(told, (op for op in compile_sampler(name, config, 8, 512, 512).ops if isinstance(op, Eval)), strict=True):
        kept = np.interp(op.t, np.arange(1000), scheduler.alphas_cumprod.numpy().astype(np.float64))
        output = answer(step.latent, op.t)
        wanted = {
            "epsilon": (step.latent - np.sqrt(1 - kept) * output) / np.sqrt(kept),
            "v_prediction": np.sqrt(kept) * step.latent - np.sqrt(1 - kept) * output,
            "sample": output,
        }[config.get("prediction_type", "epsilon")]
        if name == "LCMScheduler":  # its boundary condition, which is 1 but near the end
            wanted = step.preview if op.t < 100 else wanted
        # Karras' levels lie between the times, and diffusers interpolates their logarithm.
        np.testing.assert_allclose(step.preview, wanted, atol=(0.02 if "karras" in case else 3e-4) * np.abs(wanted).max())


@pytest.mark.parametrize(("case", "where"), [("euler", "pred_original_sample"), ("euler-karras", "pred_original_sample"),
                                             ("ddim", "pred_original_sample"), ("ddim-v", "pred_original_sample"),
                                             ("lcm", "denoised")])  # fmt: skip
def test_a_preview_is_what_the_scheduler_says(case, where):
    name, config = CASES[case]
    scheduler, told = getattr(diffusers, name)(**config), previews(name, config, 6)
    scheduler.set_timesteps(6)
    noise = np.random.default_rng(3)
    latent = torch.from_numpy(noise.standard_normal(SHAPE, np.float32)) * scheduler.init_noise_sigma
    torch.manual_seed(0)
    for step, time in zip(told, scheduler.timesteps, strict=True):
        seen = scheduler.scale_model_input(latent, time)
        if name == "LCMScheduler":  # its noise is its own here
            seen = latent = torch.from_numpy(step.latent)
        result = scheduler.step(torch.from_numpy(answer(seen.numpy(), float(time))), time, latent)
        wanted, latent = getattr(result, where).numpy(), result.prev_sample
        np.testing.assert_allclose(step.preview, wanted, atol=1e-5 * np.abs(wanted).max() + 1e-5)


def test_where_the_sampler_cannot_say_there_is_no_preview():
    assert {step.preview is None for step in previews("IPNDMScheduler", {}, 3)} == {True}
    zero = {**SD, "clip_sample": False, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    assert [step.preview is None for step in previews("DDIMScheduler", zero | {"prediction_type": "v_prediction"}, 3)] == [
        False
    ] * 3


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
def test_the_last_preview_is_the_result_where_the_last_step_arrives(name):
    table, told, noise = compile_sampler(name, SD, 5, 512, 512), [], np.random.default_rng(3)
    result = table.play(answer, lambda: noise.standard_normal(SHAPE, np.float32), told.append)
    np.testing.assert_allclose(told[-1].preview, result, atol=1e-4)

"""Runs that stop or begin between two steps are diffusers': SDXL's pipelines with denoising_end and denoising_start."""

from functools import partial
from types import SimpleNamespace

import diffusers
import numpy as np
import pytest
import torch

from engines.errors import UnsupportedError
from engines.samplers.table import Table
from exporter.recipe.schema import Recipe
from exporter.schedulers.compile_sampler import configure
from exporter.schedulers.loop import InjectedNoise
from exporter.schedulers.step_plan import planned_handovers

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SHAPE = (2, 4, 6, 5)
CASES = {
    "euler": ("EulerDiscreteScheduler", {**SD, "timestep_spacing": "leading", "steps_offset": 1}),
    "euler-trailing": ("EulerDiscreteScheduler", {**SD, "timestep_spacing": "trailing"}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", SD),
    "ddim": ("DDIMScheduler", {**SD, "clip_sample": False}),
    "pndm": ("PNDMScheduler", {**SD, "skip_prk_steps": True}),
    "heun": ("HeunDiscreteScheduler", SD),
    "kdpm2": ("KDPM2DiscreteScheduler", SD),
    "dpm++": ("DPMSolverMultistepScheduler", {**SD, "use_karras_sigmas": True}),
    "unipc": ("UniPCMultistepScheduler", SD),
}
SHARES = (0.2, 0.33, 0.5, 0.8)  # at less no step is taken, which a bundle refuses


def answer(latent, time):
    return np.tanh(latent) + np.float32(time / 1000)


def diffusers_way(case, steps, start, end, noise, given):
    """Between the networks: `StableDiffusionXLPipeline` where there is no start, else `StableDiffusionXLImg2ImgPipeline`."""
    name, config = CASES[case]
    scheduler = getattr(diffusers, name)(**config)
    scheduler.set_timesteps(steps)
    timesteps = scheduler.timesteps
    if start is not None:
        own = SimpleNamespace(scheduler=scheduler)
        timesteps, _ = diffusers.StableDiffusionXLImg2ImgPipeline.get_timesteps(own, steps, 0.3, "cpu", denoising_start=start)
        latents = torch.from_numpy(given)
    else:
        latents = torch.from_numpy(next(noise)) * scheduler.init_noise_sigma
    if end is not None:
        cut = int(round(scheduler.config.num_train_timesteps - (end * scheduler.config.num_train_timesteps)))  # noqa: RUF046 - theirs
        timesteps = timesteps[: len(list(filter(lambda ts: ts >= cut, timesteps)))]
    for t in timesteps:
        seen = scheduler.scale_model_input(latents, t)
        output = torch.from_numpy(answer(seen.numpy(), float(t)))
        with InjectedNoise(lambda _: torch.from_numpy(next(noise))):
            latents = scheduler.step(output, t, latents, return_dict=False)[0]
    return latents.numpy(), len(timesteps)


@pytest.mark.parametrize("case", CASES)
def test_a_run_stops_and_begins_where_diffusers_does(case, tmp_path):
    random = np.random.default_rng(0)
    noise, given = random.standard_normal((40, *SHAPE), np.float32), random.standard_normal(SHAPE, np.float32) * 3
    configure(*CASES[case], 7, 512, 512).handovers().dump(tmp_path / "h.json")
    for start, end in ((None, None), *((None, share) for share in SHARES), *((share, None) for share in SHARES), (0.33, 0.8)):
        table, draws = Table.load_between(tmp_path / "h.json", start, end), iter(noise)
        played = table.play(answer, partial(next, draws), given={"image": given})
        wanted, evaluations = diffusers_way(case, 7, start, end, iter(noise), given)
        assert sum(op.op == "eval" for op in table.ops) == evaluations, (start, end)
        np.testing.assert_allclose(played, wanted, atol=1e-4 * np.abs(wanted).max(), err_msg=f"{start} to {end}")


def test_a_scheduler_that_does_not_say_how_long_it_was_trained_is_refused():
    made = configure("EulerDiscreteScheduler", SD, 3, 512, 512)
    scheduler = made.make()
    scheduler.register_to_config(num_train_timesteps=None)
    with pytest.raises(UnsupportedError, match="num_train_timesteps"):
        type(made)(lambda: scheduler, made.loop, made.provenance, made.settings).handovers()


def test_what_a_recipe_asks_of_steps_holds_in_them():
    text = """
model: {source: tiny, weights: random}
sampler: {steps: [4], guidance: {mode: classifier_free, scale: 7.0, interval: [0.0, 0.5]}, handover: true}
shapes: {height: [32, 32, 32], width: [32, 32, 32], batch: [1, 1, 1]}
"""
    options = Recipe.parse(text, "small").sampler
    found = planned_handovers(configure("EulerDiscreteScheduler", SD, 4, 512, 512).handovers(), options)
    assert [op.guided for op in found.whole if op.op == "eval"] == [1.0, 1.0, 0.0, 0.0]
    assert [op.guided for op in found.starts[1] if op.op == "eval"] == [1.0, 0.0, 0.0]

"""Tables that start from a given latent do what diffusers' image-to-image and inpainting do between encoder and decoder."""

from dataclasses import replace
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch

from engines.errors import UnsupportedError
from engines.samplers.table import Draw, Eval, GivenLatent, Starts, Table
from exporter.families import Driving
from exporter.recipe.schema import Recipe
from exporter.schedulers.compile_sampler import configure
from exporter.schedulers.loop import InjectedNoise, Loop
from exporter.schedulers.trace import TOLERANCE, prove, trace
from exporter.stages.plan import Plan

# diffusers hands torch tensors to numpy, which numpy 2 warns about.
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SHAPE = (2, 4, 6, 5)
CASES = {
    "euler": ("EulerDiscreteScheduler", {**SD, "timestep_spacing": "trailing"}),
    "euler-leading": ("EulerDiscreteScheduler", {**SD, "timestep_spacing": "leading"}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", SD),
    "ddim": ("DDIMScheduler", {**SD, "clip_sample": False}),
    "ddpm": ("DDPMScheduler", {**SD, "clip_sample": False}),
    "pndm": ("PNDMScheduler", {**SD, "skip_prk_steps": True}),
    "heun": ("HeunDiscreteScheduler", SD),
    "lcm": ("LCMScheduler", SD),
    "lcm-few": ("LCMScheduler", {**SD, "original_inference_steps": 10}),
    "dpm++": ("DPMSolverMultistepScheduler", {**SD, "use_karras_sigmas": True}),
    "unipc": ("UniPCMultistepScheduler", SD),
}


def answer(latent, time):
    return np.tanh(latent) + np.float32(time / 1000)


def clean_way(case, steps, strength, image, draws, mask):
    """`__call__` of IFInpaintingPipeline between the networks: what the mask keeps never has noise."""
    name, config = CASES[case]
    scheduler = getattr(diffusers, name)(**config)
    scheduler.set_timesteps(steps)
    timesteps = scheduler.timesteps[steps - int(steps * strength) :]
    noise, image = torch.from_numpy(next(draws)), torch.from_numpy(image)
    latents = (1 - mask) * image + mask * scheduler.add_noise(image, noise, timesteps[:1].repeat(len(image)))
    for t in timesteps:
        output = torch.from_numpy(answer(latents.numpy(), float(t)))
        with InjectedNoise(lambda _: torch.from_numpy(next(draws))):
            latents = (1 - mask) * latents + mask * scheduler.step(output, t, latents, return_dict=False)[0]
    return latents.numpy()


@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("case", ["ddim", "ddpm"])
def test_a_pipeline_that_keeps_a_picture_clean_has_it_so_in_its_tables(case, strength, tmp_path):
    steps, random, (name, config) = 4, np.random.default_rng(0), CASES[case]
    configure(name, config, steps, 512, 512, driving=Driving(clean=True)).starts().dump(tmp_path / "t.json")
    image, *noise = (random.standard_normal(SHAPE, dtype=np.float32) for _ in range(2 + steps))
    mask = random.random((2, 1, 6, 5)) < 0.5
    table, draws = Table.load_start(tmp_path / "t.json", steps - int(steps * strength), alone=strength == 1.0), iter(noise)
    played = table.play(answer, lambda: next(draws), given={"image": image}, mask=mask)
    wanted = clean_way(case, steps, strength, image, iter(noise), torch.from_numpy(mask.astype(np.float32)))
    np.testing.assert_allclose(played, wanted, rtol=1e-4, atol=1e-4)


def starts(case, steps):
    name, config = CASES[case]
    return configure(name, config, steps, 512, 512).starts()


def diffusers_way(case, steps, strength, image, draws, mask, *, spread=False):
    """`__call__` of StableDiffusionImg2ImgPipeline, and with a mask of StableDiffusionInpaintPipeline, between the networks.

    `spread`: of LatentConsistencyModelImg2ImgPipeline.
    """
    name, config = CASES[case]
    scheduler = getattr(diffusers, name)(**config)
    scheduler.set_timesteps(steps, **({"strength": strength} if spread else {}))
    skipped = 0 if spread else max(steps - min(int(steps * strength), steps), 0)
    timesteps = scheduler.timesteps[skipped * scheduler.order :]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(skipped * scheduler.order)
    noise, image = torch.from_numpy(next(draws)), torch.from_numpy(image)
    if mask is not None and strength == 1.0:
        latents = noise * scheduler.init_noise_sigma
    else:
        latents = scheduler.add_noise(image, noise, timesteps[:1].repeat(len(image)))
    for i, t in enumerate(timesteps):
        seen = scheduler.scale_model_input(latents, t)
        output = torch.from_numpy(answer(seen.numpy(), float(t)))
        with InjectedNoise(lambda _: torch.from_numpy(next(draws))):
            latents = scheduler.step(output, t, latents, return_dict=False)[0]
        if mask is not None:
            kept = image
            if i < len(timesteps) - 1:
                kept = scheduler.add_noise(kept, noise, torch.tensor([timesteps[i + 1]]))
            latents = (1 - mask) * kept + mask * latents
    return latents.numpy()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_every_strength_is_what_diffusers_does(case, masked, tmp_path):
    steps, random = 5, np.random.default_rng(5)
    starts(case, steps).dump(tmp_path / "t.json")
    image, noise = random.standard_normal(SHAPE, np.float32), random.standard_normal((20, *SHAPE), np.float32)
    mask = random.random((2, 1, 6, 5)) < 0.5 if masked else None
    for strength in (0.2, 0.5, 0.6, 0.9999, 1.0):
        start = steps - min(int(steps * strength), steps)
        table, draws = Table.load_start(tmp_path / "t.json", start, alone=masked and strength == 1.0), iter(noise)
        played = table.play(answer, lambda: next(draws), given={"image": image}, mask=mask)  # noqa: B023 - within this turn
        weight = None if mask is None else torch.from_numpy(mask.astype(np.float32))
        wanted = diffusers_way(case, steps, strength, image, iter(noise), weight)
        np.testing.assert_allclose(played, wanted, atol=2e-5 * np.abs(wanted).max())
        if masked:
            np.testing.assert_array_equal(np.where(mask, 0, played), np.where(mask, 0, image))


def test_steps_that_are_spread_over_a_strength_are_those_of_lcm_s_own_pipeline(tmp_path):
    random, steps = np.random.default_rng(5), 5
    made = configure("LCMScheduler", {**SD, "original_inference_steps": 10}, steps, 512, 512).starts(spread=True)
    made.dump(tmp_path / "t.json")
    assert made.strengths == (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # of 10 times of the training 5 to 10
    image, noise = random.standard_normal(SHAPE, np.float32), random.standard_normal((20, *SHAPE), np.float32)
    for strength in (0.5, 0.58, 0.6, 0.999, 1.0):
        table, draws = Table.load_start(tmp_path / "t.json", 0, strength=strength), iter(noise)
        played = table.play(answer, lambda: next(draws), given={"image": image})  # noqa: B023 - within this turn
        wanted = diffusers_way("lcm-few", steps, strength, image, iter(noise), None, spread=True)
        np.testing.assert_allclose(played, wanted, atol=2e-5 * np.abs(wanted).max())


def test_more_steps_than_any_strength_has_are_refused_in_diffusers_words():
    with pytest.raises(UnsupportedError, match="LCMScheduler failed in set_timesteps"):
        configure("LCMScheduler", {**SD, "original_inference_steps": 4}, 5, 512, 512).starts(spread=True)


def test_a_table_of_a_start_leaves_out_that_many_evaluations():
    made = starts("euler", 6)
    assert isinstance(made, Starts)
    for start, ops in enumerate(made.starts):
        assert [op.op for op in ops[:2]] == ["draw", "given"]
        assert sum(isinstance(op, Eval) for op in ops) == 6 - start
    assert [op.op for op in made.alone[:2]] == ["draw", "given"]
    first = next(op for op in made.alone if isinstance(op, Eval))
    assert first.row == first.kept  # noise alone, wherever
    assert len(first.row) == 1
    assert made.provenance.deviation < TOLERANCE / 10
    # What is kept is the image under noise, whatever the model said: two coefficients.
    assert all(len(op.kept) == 2 for op in made.starts[0] if isinstance(op, Eval))


@pytest.mark.parametrize("name", ["IPNDMScheduler", "SCMScheduler"])
def test_a_scheduler_that_cannot_add_noise_is_refused(name):
    with pytest.raises(UnsupportedError, match=rf"{name} cannot add noise.*no add_noise.*Leave vae_encoder out"):
        configure(name, {}, 2, 512, 512).starts()


def test_a_recipe_with_an_encoder_and_such_a_scheduler_is_refused_before_time_is_spent():
    path = Path(__file__).parents[3] / "recipes" / "demo-image-to-image.yaml"
    wrong = ["sampler.scheduler=IPNDMScheduler", "sampler.config={}"]
    with pytest.raises(UnsupportedError, match=r"IPNDMScheduler cannot add noise.*Leave vae_encoder out"):
        Plan(Recipe.load(path, wrong)).table(25)
    assert Plan(Recipe.load(path.with_name("demo.yaml"), wrong)).table(25).ops


def altered(table, index, **changes):
    op = table.ops[index]
    return table.model_copy(update={"ops": (*table.ops[:index], op.model_copy(update=changes), *table.ops[index + 1 :])})


def test_an_altered_row_preview_or_order_is_caught():
    configured = configure(*CASES["dpm++"], 4, 512, 512)
    loop = replace(configured.loop, start=1)
    table = trace(configured.make, loop, configured.provenance)
    assert prove(table, configured.make, loop) < TOLERANCE / 10
    assert [type(op) for op in table.ops[:3]] == [Draw, GivenLatent, Eval]
    last = len(table.ops) - 1
    seen = table.ops[3]
    for index, changes in (
        (3, {"kept": (seen.kept[0] * 1.01, seen.kept[1])}),
        (3, {"row": (seen.row[0] * 1.01, *seen.row[1:])}),
        (3, {"preview": (seen.preview[0] * 1.01, seen.preview[1])}),
        (last, {"kept": (0.0, 0.99)}),
    ):
        with pytest.raises(UnsupportedError, match="off, and"):
            prove(altered(table, index, **changes), configured.make, loop)


class Bent(diffusers.DDIMScheduler):
    """Adds noise by the size of what it is given."""

    def add_noise(self, original, noise, times):
        return super().add_noise(original, noise * original.abs().mean(), times)


def test_noise_that_is_added_otherwise_than_linearly_is_refused():
    make, loop = lambda: Bent(clip_sample=False), Loop(3, start=1)
    provenance = configure("DDIMScheduler", {"clip_sample": False}, 3, 512, 512).provenance
    with pytest.raises(UnsupportedError, match="not a linear sampler"):
        prove(trace(make, loop, provenance), make, loop)

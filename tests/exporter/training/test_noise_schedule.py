"""The schedule's arithmetic is that of diffusers' own samplers."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler

from engines.errors import UnsupportedError
from exporter.training.noise_schedule import Schedule, guided

CONFIG = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_steps_are_those_of_diffusers(prediction):
    theirs = DDIMScheduler(**CONFIG, prediction_type=prediction, timestep_spacing="trailing", clip_sample=False)
    theirs.set_timesteps(5)
    ours = Schedule({**CONFIG, "prediction_type": prediction}, "x")
    grid = ours.grid(5)
    assert grid.tolist() == [*theirs.timesteps.tolist(), -1]
    latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    other = latent
    for index in range(5):
        said = torch.sin(3 * latent)
        latent = ours.step(prediction, latent, said, grid[index : index + 1], grid[index + 1 : index + 2])
        other = theirs.step(torch.sin(3 * other), theirs.timesteps[index], other).prev_sample
        assert torch.allclose(latent, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))


def test_unequal_steps_are_those_of_eulers_own_times():
    times, ours = [999, 624, 311, 124], Schedule({**CONFIG, "prediction_type": "epsilon"}, "x")
    theirs = EulerDiscreteScheduler(**CONFIG)
    theirs.set_timesteps(timesteps=times)
    grid = torch.tensor([*times, -1])
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    latent, other = ours.level(grid[:1])[1] * noise, theirs.sigmas[0] * noise
    for index, time in enumerate(theirs.timesteps):
        scaled = theirs.scale_model_input(other, time)
        assert torch.allclose(latent, scaled, rtol=1e-3, atol=1e-3)
        latent = ours.step("epsilon", latent, torch.sin(3 * latent), grid[index : index + 1], grid[index + 1 : index + 2])
        other = theirs.step(torch.sin(3 * scaled), time, other).prev_sample
    assert torch.allclose(latent, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))


def test_an_aim_is_where_one_step_arrives():
    ours = Schedule({**CONFIG, "prediction_type": "epsilon"}, "x")
    generator = torch.Generator().manual_seed(0)
    latent, arrived = torch.randn(2, 3, 4, 8, 8, generator=generator)
    times, then = torch.tensor([999, 499, 20]), torch.tensor([499, -1, 0])
    _, noise = ours.aim(latent, arrived, times, then)
    assert torch.allclose(ours.step("epsilon", latent, noise, times, then), arrived, atol=1e-3)


def test_noisy_latents_and_what_is_said_of_them_go_both_ways():
    ours, theirs = Schedule({**CONFIG, "prediction_type": "v_prediction"}, "x"), DDPMScheduler(**CONFIG)
    clean, noise = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    times = torch.tensor([0, 500, 999])
    latent = ours.noisy(clean, noise, times)
    torch.testing.assert_close(latent, theirs.add_noise(clean, noise, times), rtol=1e-5, atol=1e-5)
    said = {"epsilon": noise, "sample": clean, "v_prediction": theirs.get_velocity(clean, noise, times)}
    for prediction, answer in said.items():
        for found, want in zip(ours.split(prediction, latent, answer, times), (clean, noise), strict=True):
            torch.testing.assert_close(found, want, rtol=1e-2, atol=2e-2)
    assert [float(each) for each in ours.level(torch.tensor([-1]))] == [1.0, 0.0]


def test_weights_of_the_clean_latent_s_error():
    ours = Schedule({**CONFIG, "prediction_type": "epsilon"}, "x")
    times = torch.tensor([0, 999])
    ratio = ours.level(times)[0] ** 2 / ours.level(times)[1] ** 2
    torch.testing.assert_close(ours.weight("snr_plus_one", times), ratio + 1)
    assert ours.weight("truncated_snr", times)[1] == 1
    torch.testing.assert_close(ours.weight("truncated_snr", times)[0], ratio[0])
    assert (ours.weight("none", times) == 1).all()


def test_guidance_mixes_the_branches_of_one_call():
    calls = []

    def network(latent, times, states):
        calls.append((latent.shape, times.tolist()))
        return latent * states.reshape(-1, 1, 1, 1)

    latent, states = torch.ones(2, 1, 1, 1), torch.tensor([3.0, 5.0]).reshape(2, 1, 1)
    found = guided(network, latent, torch.tensor([7, 8]), [states], [torch.full((1, 1, 1), 2.0)], torch.tensor([1.0, 4.0]))
    assert found.flatten().tolist() == [3.0, 2 + 4 * (5 - 2)]
    assert calls == [((4, 1, 1, 1), [7.0, 8.0, 7.0, 8.0])]


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "reflow: FlowMatchEulerDiscreteScheduler is a flow"),
        ({"use_flow_sigmas": True}, "is a flow"),
        ({"prediction_type": "flow_prediction"}, "prediction_type 'flow_prediction' says nothing of its noise"),
    ],
)
def test_what_has_no_such_schedule(config, told):
    with pytest.raises(UnsupportedError, match=told):
        Schedule(config, "reflow")

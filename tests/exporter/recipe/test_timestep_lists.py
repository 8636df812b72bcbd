import pytest
from diffusers import DDIMScheduler
from diffusers.schedulers.scheduling_utils import AysSchedules

from exporter.recipe.timestep_lists import NAMES, PowerLaw, found


def test_align_your_steps_is_what_diffusers_has():
    assert list(found("ays-sd-10").times) == AysSchedules["StableDiffusionTimesteps"]
    assert list(found("ays-sdxl-10").times) == AysSchedules["StableDiffusionXLTimesteps"]


def test_every_list_falls_and_says_whose_it_is():
    for name in NAMES:
        entry = found(name)
        assert all(0 <= later < earlier < 1000 for earlier, later in zip(entry.times, entry.times[1:], strict=False)), name
        assert f"-{len(entry.times)}" in name
        assert "arXiv" in entry.source
        assert entry.model


@pytest.mark.parametrize("steps", [1, 7, 25, 50])
def test_a_power_of_one_is_what_diffusers_calls_trailing(steps):
    scheduler = DDIMScheduler(timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    assert list(PowerLaw(power=1).times(steps)) == scheduler.timesteps.tolist()


def test_a_power_law_crowds_steps_at_one_end():
    assert PowerLaw(power=2).times(4) == (999, 561, 249, 61)  # 1000·(1, 9/16, 1/4, 1/16), less one
    assert PowerLaw(power=0.5).times(4) == (999, 865, 706, 499)  # 1000·(1, 0.866, 0.7071, 0.5), less one
    assert PowerLaw(power=2).problem(4) == ""


@pytest.mark.parametrize(("power", "steps"), [(3, 25), (2.5, 30), (2, 50), (10, 3)])
def test_a_power_that_is_too_much_for_so_many_steps(power, steps):
    law = PowerLaw(power=power)
    assert len(set(law.times(steps))) < steps or min(law.times(steps)) < 0
    assert (
        law.problem(steps)
        == f"timesteps: at a power of {power} the last of {steps} steps fall together; take fewer, or a lower power"
    )

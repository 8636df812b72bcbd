from diffusers.schedulers.scheduling_utils import AysSchedules

from exporter.recipe.timestep_lists import NAMES, found


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

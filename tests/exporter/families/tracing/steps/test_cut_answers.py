"""Every step of a run is answered by the first blocks too, on what earlier steps left, as the source with caching answers."""

import functools

import pytest
import torch

from exporter.caching import schedules
from exporter.caching import search as searching
from exporter.parity.metrics import psnr
from exporter.recipe.sampling import CacheOptions
from exporter.reference.record import record
from exporter.stages.tables import compiled
from tests.exporter.families.test_traced import family
from tests.exporter.families.tracing.steps.test_blocks import CACHED

STEPS = 9


@torch.no_grad()
def answers(reference, cache):
    """What every step of a run gives the scheduler."""
    asked = {"height": 32, "width": 32, "num_inference_steps": STEPS, "output_type": "latent"}
    scheduler, found = reference.pipeline.scheduler, []
    step = scheduler.step

    @functools.wraps(step)  # pipelines look at its arguments
    def stepped(output, *args, **kwargs):
        found.append(output.clone())
        return step(output, *args, **kwargs)

    scheduler.step = stepped
    try:
        generator = torch.Generator().manual_seed(3)
        reference.call(reference.encode(["A red circle"], "Blurry"), 4.0, **asked, generator=generator, cache=cache)
    finally:
        del scheduler.step
    return found


@pytest.mark.parametrize(
    ("name", "mode", "depth"),
    [("pixart-sigma", "classifier_free", 0), ("flux-guided", "embedded", 0), ("z-image", "classifier_free", 0)],
)
def test_a_step_is_off_by_what_caching_makes_of_it(model, name, mode, depth):
    made = family(model(name), mode, text=CACHED)
    assert depth in made.cache_depths
    reference, seen = made.reference(), {}
    with reference.reusing([depth], 2, lambda *told: seen.update({told[:3]: told[3]})):
        whole = answers(reference, None)
    assert list(seen) == [(depth, origin, call) for call in range(STEPS) for origin in range(max(0, call - 2), call)]
    # Cached at one step alone, the source comes to it with the same latent, and answers as the first blocks did.
    for shallow in (2, 3):
        steps = tuple(step for step in range(1, STEPS + 1) if step != shallow)
        cached = answers(reference, CacheOptions(whole=steps, depth=depth))
        wanted = reference.unpacked(cached[shallow - 1] - whole[shallow - 1], made.latent_shape(1, 32, 32)).flatten(1)
        found = torch.from_numpy(seen[depth, shallow - 2, shallow - 1])
        assert wanted.norm() > 1e-4
        assert (found - wanted).norm() / wanted.norm() < 1e-2, "a difference of what is nearly the same"


@pytest.mark.long
def test_a_schedule_is_searched_and_its_images_are_those_of_the_recording(model):
    source = model("stable-diffusion-3")
    made = family(source, text=CACHED)
    found = searching.search(made, made.recipe, CacheOptions(budget=0.75), compiled(made, STEPS))
    assert found.whole[0] == 1
    assert found.share <= 0.75
    assert len(found.psnr) == 2
    assert found.depth in schedules.tried(made.cache_depths)
    written = f"{{whole: {list(found.whole)}, depth: {found.depth}}}"
    cached = family(source, text=CACHED.replace("{every: 3}", written))
    run = record(cached, cached.recipe).runs[0]
    assert psnr(run.image, run.uncached, 1.0) == pytest.approx(found.psnr[0], abs=0.1)

"""Searches on a tiny model: the schedule keeps what was asked, is played as diffusers would, and is the same each time."""

import numpy as np
import pytest

from engines.errors import RecipeError
from exporter.caching import search as searching
from exporter.families.sd import Sd
from exporter.parity.metrics import psnr
from exporter.recipe.sampling import CacheOptions, GuidanceOptions, SamplerOptions
from exporter.recipe.schema import Checks, Shapes
from exporter.reference.record import record
from exporter.stages.tables import compiled
from tests.exporter import equality, models

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")
STEPS = 10


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Two stages of two layers, so two depths."""
    blocks = {"block_out_channels": [8, 16], "layers_per_block": 2, "attention_head_dim": [1, 2]}
    blocks |= {"down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"], "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"]}
    return models.save_sd(tmp_path_factory.mktemp("two"), network=models.unet(**blocks))


def family(source, *, cache=None, scheduler="EulerDiscreteScheduler", **guidance):
    options = GuidanceOptions(mode="classifier_free", scale=4.0, **guidance)
    sampler = SamplerOptions(scheduler=scheduler, steps=(STEPS,), guidance=options, cache=cache or CacheOptions(every=2))
    checks, shapes = Checks(prompts=("a red circle", "the blue square"), seed=3), Shapes(height=(16,) * 3, width=(16,) * 3)
    return equality.family(Sd, source, sampler=sampler, checks=checks, shapes=shapes)


def found(source, asked, **options):
    made = family(source, **options)
    return searching.search(made, made.recipe, asked, compiled(made, STEPS))


@pytest.fixture(scope="module")
def within(source):
    return found(source, CacheOptions(budget=0.6))


def test_a_budget_is_kept_and_its_images_are_those_of_the_recording(source, within):
    assert 0.4 < within.share <= 0.6
    assert within.whole[0] == 1
    assert len(within.psnr) == 2
    made = family(source, cache=within.options)
    run = record(made, made.recipe).runs[0]
    assert run.setting.prompts == ("a red circle",)
    assert psnr(run.image, run.uncached, 1.0) == pytest.approx(within.psnr[0], abs=0.1)
    shallow = [index for index in range(STEPS) if index + 1 not in within.whole]
    assert list(np.flatnonzero(run.shallow)) == shallow


def test_a_search_finds_the_same_each_time(source, within):
    again = found(source, CacheOptions(budget=0.6))
    assert (again.whole, again.depth, again.share) == (within.whole, within.depth, within.share)


def test_a_floor_is_kept_by_every_image_at_fewer_multiply_adds_the_lower_it_is(source, within):
    low = found(source, CacheOptions(floor=min(within.psnr) - 3))
    assert min(low.psnr) >= min(within.psnr) - 3
    assert low.share <= within.share


def test_the_first_step_with_guidance_is_whole_and_costs_two_branches(source):
    chosen = found(source, CacheOptions(budget=0.5), interval=(0.3, 0.8))
    assert 4 in chosen.whole, "the fourth of ten is the first with two branches"
    sampler = family(source, interval=(0.3, 0.8)).recipe.sampler.model_copy(update={"cache": chosen.options})
    assert tuple(step + 1 for step, whole in enumerate(sampler.wholes(STEPS)) if whole) == chosen.whole
    # Five of ten steps have two branches: 15 evaluations of one.
    whole = sum(2 if 4 <= step <= 8 else 1 for step in chosen.whole)
    assert whole / 15 < chosen.share <= 0.5


def test_a_budget_that_cannot_be_is_told_with_what_can(source):
    with pytest.raises(RecipeError, match=r"budget: 0.01 of the multiply-adds is less than .* than 10 steps; write 0\.\d\d or"):
        found(source, CacheOptions(budget=0.01))


def test_a_floor_that_cannot_be_is_told_with_what_can(source):
    with pytest.raises(RecipeError, match=r"floor: 100 dB is more than any schedule .* is [\d.]+ dB .* Write \d+ dB or less"):
        found(source, CacheOptions(floor=100))


def test_schedulers_that_call_the_network_more_often_than_once_a_step_are_refused(source):
    with pytest.raises(RecipeError, match="calls it 19 times in 10 steps; take every: 3, or another scheduler"):
        found(source, CacheOptions(budget=0.5), scheduler="HeunDiscreteScheduler")


def test_both_kinds_of_schedules_stand_beside_each_other(source):
    made = family(source, interval=(0.0, 0.8))
    ((even, sums), *_) = rows = searching.beside(made, made.recipe, compiled(made, STEPS), [5, 4])
    assert [len(each.whole) for row in rows for each in row] == [5, 5, 4, 4]
    assert np.diff(even.whole).max() - np.diff(even.whole).min() <= 1
    assert even.whole != sums.whole
    for schedule in (even, sums):
        run = record(cached := family(source, cache=schedule.options, interval=(0.0, 0.8)), cached.recipe).runs[0]
        assert psnr(run.image, run.uncached, 1.0) == pytest.approx(schedule.psnr[0], abs=0.1)
    with pytest.raises(RecipeError, match="no schedules of both kinds have 10 whole steps; write one of 1, 2, 3"):
        searching.beside(made, made.recipe, compiled(made, STEPS), [STEPS])

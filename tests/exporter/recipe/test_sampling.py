"""Guidance of single steps and time grids by name: what is taken, and what is refused with what would fit."""

import pytest

from engines.errors import RecipeError
from exporter.recipe.sampling import GuidanceOptions
from exporter.recipe.schema import Recipe

TEXT = "model: {{source: a}}\nsampler: {{steps: {steps}, {sampler}}}\nshapes: {{height: [8, 8, 8], width: [8, 8, 8]}}\n"


def parsed(sampler, steps="[10]"):
    return Recipe.parse(TEXT.format(sampler=sampler, steps=steps), "x").sampler


def guided(more, steps="[10]", head="mode: classifier_free, scale: 5"):
    return parsed(f"guidance: {{{head}, {more}}}", steps).guidance


def test_an_interval_begins_and_ends_as_the_guiders_of_diffusers_do():
    shares = guided("interval: [0.15, 0.85]", "[25]").shares(25)
    assert [index for index, share in enumerate(shares) if share] == list(range(3, 21))
    assert set(shares) == {0.0, 1.0}
    assert GuidanceOptions(mode="classifier_free", scale=5.0).shares(25) is None


def test_scales_are_shares_of_the_default_counted_from_one():
    options = guided("scales: [5, 3, 1, 0, 9]", "[5]")
    assert options.shares(5) == (1.0, 0.5, 0.0, 0.0, 2.0)
    assert options.pauses
    assert not guided("scales: [5, 3]", "[2]").pauses


@pytest.mark.parametrize(
    ("more", "steps", "told"),
    [
        ("interval: [0.2, 1.2]", "[10]", r"interval\[1\]: must be at most 1"),
        ("interval: [-0.2, 1]", "[10]", r"interval\[0\]: must be at least 0"),
        ("interval: [0.8, 0.2]", "[10]", r"must rise.*sorted it is \[0.2, 0.8\]"),
        ("interval: [0.5, 0.5]", "[10]", r"must rise.*write \[0.15, 0.85\]"),
        ("interval: [0.51, 0.55]", "[10, 100]", r"holds none of 10 steps; the nearest that holds one is \[0.5, 0.6\]"),
        ("scales: [5, 5]", "[3]", "has 2 scales, and there are 3 steps; write one of each"),
        ("scales: [5, .nan]", "[2]", r"scales\[1\]: .nan is not a number"),
        ("interval: [0, 0.5], scales: [5, 1]", "[2]", "both an interval and a scale of each step"),
    ],
)
def test_what_cannot_be_is_told_with_what_can(more, steps, told):
    with pytest.raises(RecipeError, match=told):
        guided(more, steps)


@pytest.mark.parametrize(
    ("head", "told"),
    [
        ("mode: none", "interval has no effect in mode 'none'"),
        ("mode: embedded, scale: 7", "interval has no effect in mode 'embedded'"),
        ("mode: classifier_free, scale: 1", "no effect at scale 1, where guidance is off; raise"),
    ],
)
def test_only_two_branches_have_steps_of_one(head, told):
    with pytest.raises(RecipeError, match=told):
        guided("interval: [0.1, 0.9]", head=head)


def test_a_published_grid_goes_by_its_name():
    sampler = parsed("timesteps: ays-sdxl-10")
    assert sampler.times == (999, 845, 730, 587, 443, 310, 193, 116, 53, 13)
    assert sampler.asked()["timesteps"] == list(sampler.times)
    assert parsed("timesteps: [999, 499]", "[2]").times == (999, 499)
    with pytest.raises(RecipeError, match=r"timesteps has 10 times, but steps is \[25\]; set steps: \[10\]"):
        parsed("timesteps: ays-sdxl-10", "[25]")
    with pytest.raises(RecipeError, match=r"must be 'ays-sd-10', 'ays-sdxl-10'.* not 'ays'"):
        parsed("timesteps: ays")
    with pytest.raises(RecipeError, match="timesteps: has 0 values, and needs at least 1"):
        parsed("timesteps: []")


def test_a_power_law_is_a_grid_of_any_number_of_steps():
    sampler = parsed("timesteps: {power: 2}", "[4, 2]")
    assert sampler.times == (999, 561, 249, 61)
    assert sampler.times_over(2) == (999, 249)
    assert sampler.asked()["timesteps"] == [999, 561, 249, 61]
    assert sampler.asked(2)["timesteps"] == [999, 249]
    with pytest.raises(RecipeError, match="at a power of 3 the last of 25 steps fall together"):
        parsed("timesteps: {power: 3}", "[4, 25]")
    with pytest.raises(RecipeError, match=r"timesteps\.power: must be more than 0"):
        parsed("timesteps: {power: 0}", "[4]")
    with pytest.raises(RecipeError, match=r"timesteps\.powr"):
        parsed("timesteps: {powr: 2}", "[4]")
    with pytest.raises(RecipeError, match="both timesteps and sigmas"):
        parsed("timesteps: {power: 2}, sigmas: [9.0, 1.0]", "[2]")


@pytest.mark.parametrize(
    ("cache", "steps", "told"),
    [
        ("every: 3", "[25, 4]", "cache pays from 9 steps on, .* and steps has 4; leave it out"),
        ("every: 1", "[25]", r"cache.every: must be at least 2"),
        ("depth: 1", "[25]", "needs one of every, such as every: 3, of whole, .* floor: 30 dB or budget: 0.5"),
        ("every: 3, whole: [1, 2]", "[25]", "needs one of every"),
        ("floor: 30, budget: 0.5", "[25]", "needs one of every"),
        ("floor: 30 dB, depth: 0", "[25]", "depth 0 is what the search finds; leave it out"),
        ("floor: 30 dB", "[25, 30]", r"a search of the cache is of one number of steps, and steps is \[25, 30\]; keep one"),
        ("floor: 30 dB", "[8]", "cache pays from 9 steps on, .* and steps has 8; leave it out"),
        ("floor: thirty", "[25]", "cache.floor: must be a number, not 'thirty'"),
        ("floor: -3 dB", "[25]", "cache.floor: must be a number, not '-3 dB'"),
        ("floor: 300", "[25]", "cache.floor: must be at most 100"),
        ("budget: 1", "[25]", "cache.budget: must be less than 1"),
        ("budget: 0", "[25]", "cache.budget: must be more than 0"),
        ("whole: [2, 5]", "[25]", "begins with step 2, and no call before it leaves anything; begin with 1"),
        ("whole: [1, 5, 3]", "[25]", r"must rise; sorted it is \[1, 3, 5\]"),
        ("whole: [1, 26]", "[25]", "names step 26, and there are 25"),
        ("whole: [1, 2, 3, 4, 5, 6, 7, 8, 9]", "[9]", "names every step, so nothing is cached"),
        ("whole: [1, 4]", "[9, 12]", r"of one number of steps, and steps is \[9, 12\]"),
    ],
)
def test_caching_that_cannot_be_is_told_with_what_can(cache, steps, told):
    with pytest.raises(RecipeError, match=told):
        parsed(f"cache: {{{cache}}}", steps)


def test_a_plain_schedule_is_whole_where_guidance_begins():
    guidance = "guidance: {mode: classifier_free, scale: 3, interval: [0.3, 1]}, cache: {whole: [%s]}"
    with pytest.raises(RecipeError, match=r"step 4 is the first with guidance after one without.*write \[1, 4, 5\]"):
        parsed(guidance % "1, 5", "[10]")
    assert parsed(guidance % "1, 4", "[10]").wholes(10) == (True, False, False, True, *[False] * 6)


@pytest.mark.parametrize("floor", ["30", "30.0", "30 dB", "30dB"])
def test_a_floor_may_have_its_unit(floor):
    cache = parsed(f"cache: {{floor: {floor}}}").cache
    assert cache.floor == 30
    assert cache.searches

"""A value that diffusers cannot use is named, with its place and what to write."""

import re

import pytest

from engines.errors import RecipeError, UnsupportedError
from exporter.schedulers.compile_sampler import compile_sampler

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
#: The model's own config, the recipe's → what the sentence must say.
FAULTS = {
    "null": (
        {**SD, "prediction_type": None},
        {},
        ["prediction_type in the model's own scheduler_config.json is null", "epsilon"],
    ),
    "text for a number": (
        {**SD, "beta_end": "0.012"},
        {},
        ["beta_end in", "is '0.012', and must be a number", "config: {beta_end"],
    ),
    "a word that it does not know": (
        {**SD, "timestep_spacing": "even"},
        {},
        ["timestep_spacing in the model's own", "is 'even'"],
    ),
    "two of which one": (
        {**SD, "use_karras_sigmas": True},
        {"use_beta_sigmas": True},
        ["set_timesteps|constructor", "_sigmas in the"],
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_what_diffusers_refuses_is_put_down_to_a_value_and_its_place(case):
    own, config, words = FAULTS[case]
    with pytest.raises(UnsupportedError) as caught:
        compile_sampler("EulerDiscreteScheduler", config, 4, 512, 512, own=own)
    first, second = str(caught.value).splitlines()
    assert first.startswith("EulerDiscreteScheduler failed in ")  # with the vendor's words
    for word in words:
        assert re.search(word, f"{first} {second}"), str(caught.value)


@pytest.mark.parametrize("scheduler", ["PNDMScheduler", "DDIMScheduler"])
def test_betas_that_are_none_are_put_down_to_their_end(scheduler):
    with pytest.raises(UnsupportedError, match=r"gives NaN, infinity .*\nbeta_end in the model's own .* is 10"):
        compile_sampler(scheduler, {}, 4, 512, 512, own={**SD, "clip_sample": False, "beta_end": 10.0})


def test_values_of_another_type_in_the_recipe_are_problems_all_at_once():
    config = {"beta_end": "0.012", "use_karras_sigmas": "false", "num_train_timesteps": 1000.5, "sigma_min": 1}
    with pytest.raises(RecipeError) as caught:
        compile_sampler("EulerDiscreteScheduler", config, 4, 512, 512)
    assert caught.value.problems == (
        "sampler.config.beta_end: must be a number, not '0.012'",
        "sampler.config.use_karras_sigmas: must be true or false, not 'false'",
        "sampler.config.num_train_timesteps: must be a whole number, not 1000.5",
    )

"""A recipe's own times reach pipelines of diffusers whether their call takes any or not."""

import inspect

import pytest
from diffusers import DDIMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler

from exporter.families.tracing.steps.own_grid import own_grid


class Taking:
    """A pipeline whose call takes times and no noise levels."""

    def __init__(self, scheduler):
        self.scheduler = scheduler

    def __call__(self, num_inference_steps=2, timesteps=None, **_):
        """Say which times it has."""
        assert "sigmas" in inspect.signature(self.scheduler.set_timesteps).parameters, "pipelines look at that"
        if timesteps is None:
            self.scheduler.set_timesteps(num_inference_steps, device="cpu")
        else:
            self.scheduler.set_timesteps(timesteps=timesteps, device="cpu")
        return self.scheduler.timesteps.tolist()


class Bare(Taking):
    """One whose call takes neither, and that hands noise levels of its own on."""

    def __call__(self, num_inference_steps=2):
        """Say which times it has."""
        levels = [1.0, 0.5]
        self.scheduler.set_timesteps(num_inference_steps, sigmas=levels, device="cpu")
        return self.scheduler.timesteps.tolist()


def test_a_call_that_takes_times_is_given_them():
    pipeline = Taking(EulerDiscreteScheduler())
    with own_grid(pipeline, {"timesteps": [900, 30], "prompt": "a"}) as asked:
        assert asked == {"timesteps": [900, 30], "prompt": "a"}
        assert "set_timesteps" not in vars(pipeline.scheduler)
        assert pipeline(**asked) == [900, 30]


def test_a_call_that_takes_none_has_them_all_the_same():
    pipeline = Bare(FlowMatchEulerDiscreteScheduler())
    plain = pipeline()
    with own_grid(pipeline, {"timesteps": [900, 30], "num_inference_steps": 2}) as asked:
        assert asked == {"num_inference_steps": 2}
        assert pipeline(**asked) == [900, 30]
    assert pipeline() == plain
    assert "set_timesteps" not in vars(pipeline.scheduler)


def test_noise_levels_that_a_call_does_not_take_reach_the_scheduler():
    pipeline = Taking(EulerDiscreteScheduler())
    with own_grid(pipeline, {"sigmas": [9.0, 1.0, 0.0]}) as asked:
        assert asked == {}
        pipeline(**asked)
        assert pipeline.scheduler.sigmas.tolist() == [9.0, 1.0, 0.0]


def test_what_stood_there_before_stands_there_again_after_a_failure():
    pipeline = Bare(DDIMScheduler())
    pipeline.scheduler.set_timesteps = before = pipeline.scheduler.set_timesteps
    with pytest.raises(ValueError, match="on purpose"), own_grid(pipeline, {"timesteps": [900, 30]}):
        raise ValueError("on purpose")
    assert vars(pipeline.scheduler)["set_timesteps"] is before

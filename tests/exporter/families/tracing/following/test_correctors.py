"""A pipeline that predicts and corrects is followed to whichever of the two comes first."""

from types import SimpleNamespace

import diffusers
import pytest
import torch

from engines.errors import UnsupportedError
from exporter.families.tracing.following.correctors import methods, refuse_unstepped
from exporter.models.predictor_corrector import stepped


def test_a_scheduler_without_a_step_is_refused():
    with pytest.raises(UnsupportedError, match="ScoreSdeVpScheduler has no step, by which every sampler is compiled"):
        refuse_unstepped(diffusers.schedulers.ScoreSdeVpScheduler())
    refuse_unstepped(diffusers.DDIMScheduler())


def test_both_methods_are_steps_at_the_one_noise_level():
    assert methods(diffusers.DDIMScheduler(), torch.ones(2), lambda *_: None) == {}
    seen = []

    def step(*given):
        seen.append(given)
        return SimpleNamespace(prev_sample=given[2])

    time = torch.ones(2)
    own = methods(stepped(diffusers.ScoreSdeVeScheduler)(), time, step)
    assert own["step_correct"](None, "output", "sample", generator=None).prev_sample == "sample"
    result = own["step_pred"](None, "output", 0.5, "sample", generator=None)
    assert (result.prev_sample, result.prev_sample_mean) == ("sample", "sample")
    assert seen == [("output", time, "sample", {})] * 2
    own["set_sigmas"](None, 3)
    assert torch.equal(own["sigmas"][0], time)

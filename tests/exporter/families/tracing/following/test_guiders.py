"""Guidance that is a component: how it is steered, and which cannot be."""

from types import SimpleNamespace

import diffusers
import pytest
import torch

from engines.errors import UnsupportedError
from exporter.families.tracing.following import guiders
from exporter.families.tracing.following.open_scale import OpenScale


def of(guider):
    return SimpleNamespace(components={"vae": None, "guider": guider})


@pytest.mark.parametrize("on", [True, False])
def test_the_scale_of_a_guider_is_an_input(on):
    own = diffusers.ClassifierFreeGuidance(guidance_scale=4.0)
    scale = OpenScale(torch.tensor([3.0]), on=on)
    guider = guiders.steered(of(own), scale)["guider"]
    with guiders.close():
        assert guider.num_conditions == (2 if on else 1)
        batches = guider.prepare_inputs({"states": (torch.ones(1, 2), torch.zeros(1, 2))})
        for batch in batches:
            batch.noise_pred = batch.states
        assert guider(batches)[0].tolist() == ([[3.0, 3.0]] if on else [[1.0, 1.0]])
    assert scale.compared
    assert scale.threshold == 1.0
    assert own.guidance_scale == 4.0, "the pipeline's own is as it was"


@pytest.mark.parametrize(
    ("guider", "steps", "fine"),
    [
        (diffusers.ClassifierFreeGuidance(guidance_scale=4.0), 8, True),
        (diffusers.ClassifierFreeGuidance(guidance_scale=4.0, guidance_rescale=0.5), 8, True),
        (diffusers.ClassifierFreeGuidance(guidance_scale=4.0, stop=0.5), 8, False),
        (diffusers.AdaptiveProjectedMixGuidance(), 8, False),
        (diffusers.AdaptiveProjectedMixGuidance(), 4, True),
        (diffusers.AdaptiveProjectedGuidance(adaptive_projected_guidance_momentum=-0.5), 3, False),
        (diffusers.PerturbedAttentionGuidance(perturbed_guidance_layers=[0]), 30, False),
    ],
)
def test_one_that_knows_of_other_steps_is_refused(guider, steps, fine):
    if fine:
        guiders.refuse(of(guider), steps)
        return
    with pytest.raises(UnsupportedError, match=f"guider: {type(guider).__name__} guides a step by its number"):
        guiders.refuse(of(guider), steps)

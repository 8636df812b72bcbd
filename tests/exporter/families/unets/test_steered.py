"""diffusers with a scale of each step is diffusers with that scale, step by step."""

import numpy as np
import torch

from exporter.families.sd import Sd
from exporter.recipe.sampling import GuidanceOptions, SamplerOptions
from tests.exporter import equality


def sd(folder, **guidance):
    options = GuidanceOptions(mode="classifier_free", scale=5.0, **guidance)
    return equality.family(Sd, folder, sampler=SamplerOptions(scheduler="DDIMScheduler", steps=(3,), guidance=options))


def drawn(family, scale, **more):
    reference = family.reference()
    conditioning = reference.encode(["a red circle"], None)
    latent = equality.latents(batch=1, height=8, width=8)
    size = {"height": 32, "width": 32, "num_inference_steps": 3, "output_type": "np"}
    made = reference.call(conditioning, scale, latents=latent, **size, **more)
    return made.images, list(reference.scales), reference.pipeline


def test_scales_of_steps_are_those_of_diffusers_own_callback(tiny_sd):
    own, scales, pipeline = drawn(sd(tiny_sd, scales=(5.0, 3.0, 2.0)), 5.0)
    assert scales == [5.0, 3.0, 2.0]
    assert type(pipeline).__module__.startswith("diffusers")

    def lower(pipe, index, _time, values):  # what diffusers' documentation calls dynamic guidance
        pipe._guidance_scale = [3.0, 2.0, 2.0][index]
        return values

    theirs, none, _ = drawn(sd(tiny_sd), 5.0, callback_on_step_end=lower)
    assert none == []
    equality.close(torch.from_numpy(own), torch.from_numpy(theirs))
    assert np.abs(own - drawn(sd(tiny_sd), 5.0)[0]).max() > 1e-4


def test_a_request_for_another_scale_moves_all_of_them(tiny_sd):
    family = sd(tiny_sd, interval=(0.4, 1.0))
    assert drawn(family, 2.0)[1] == [1.0, 2.0, 2.0]
    assert drawn(family, 1.0)[1] == [1.0, 1.0, 1.0]

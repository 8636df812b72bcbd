"""A scheduler's own correction, held to the one that tables have: of one picture they are the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from exporter.models.predictor_corrector import corrects
from exporter.schedulers.loop import InjectedNoise, Loop, blame, set_times


def own_share(scheduler: Any, loop: Loop) -> float:  # noqa: ANN401 - a diffusers scheduler, fresh
    """How far diffusers' own correction of one picture is from `step`'s, as a share of the largest latent; 0 without any."""
    if not corrects(scheduler):
        return 0.0
    name, random = type(scheduler).__name__, np.random.Generator(np.random.Philox(7))
    answer, latent, noise = (torch.from_numpy(random.standard_normal((1, 3, 4, 5))) for _ in range(3))
    set_times(scheduler, loop)
    with blame(name, "step_correct"), InjectedNoise(lambda _: noise, name):
        own = scheduler.as_diffusers.step_correct(scheduler, answer, latent).prev_sample
        ours = scheduler.step(answer, scheduler.timesteps[0], latent).prev_sample
    return float((own - ours).abs().max() / own.abs().max())

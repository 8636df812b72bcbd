"""Steps that are computed from the noise's level: one number a picture, of which a pipeline's code thinks as of one number."""

import diffusers
import numpy as np
import pytest
import torch

from engines.errors import UnsupportedError
from exporter.families.tracing.following import noise_levels, standins
from exporter.families.tracing.following.noise_levels import NoiseLevels, Sigmas
from exporter.models.predictor_corrector import stepped


def test_each_pictures_level_counts_for_its_rows():
    levels, value = NoiseLevels(), torch.tensor([2.0, 3.0])
    rows = torch.randn(4, 3, 2, 2)  # of two branches
    assert not levels.read
    with levels:
        sigma = Sigmas(levels, value)[0]
        made = 1 / (sigma**2 + 1) * rows + rows / (sigma**2 + 1) ** 0.5 - rows * (2 - sigma)
        time = torch.log(sigma) * 0.25
    assert levels.read
    torch.testing.assert_close(time, value.log() * 0.25)
    for row, number in enumerate((2.0, 3.0, 2.0, 3.0)):
        wanted = rows[row] / (number**2 + 1) + rows[row] / (number**2 + 1) ** 0.5 - rows[row] * (2 - number)
        torch.testing.assert_close(made[row], wanted)


def test_another_tensor_of_one_axis_is_no_level():
    levels, weight = NoiseLevels(), torch.tensor([2.0, 3.0])
    with levels:
        Sigmas(levels, torch.ones(2))[0]
        made = torch.ones(2, 5, 2) * weight  # by channel, as a network's weights are
    torch.testing.assert_close(made[0, 0], weight)


@pytest.mark.parametrize("place", [1, -1, slice(None)])
def test_the_levels_of_other_steps_are_refused(place):
    with pytest.raises(UnsupportedError, match="the scheduler's sigmas at"):
        Sigmas(NoiseLevels(), torch.ones(1))[place]


def followed(*, known, kind="EulerDiscreteScheduler"):
    levels, value = NoiseLevels(), torch.tensor([1.0, 3.0])
    real = stepped(getattr(diffusers, kind))()
    stand_in = standins.scheduler(real, value, lambda *_: None, standins.Grid())
    return noise_levels.followed(stand_in, real, levels, value, known=known), stand_in, levels


def test_where_it_is_known_latents_are_scaled_by_the_schedulers_own_code():
    scheduler, _, levels = followed(known=True)
    scheduler.set_timesteps(num_inference_steps=5)
    assert scheduler.timesteps.isnan().all(), "what is computed from the time comes to nothing"
    with levels:
        scaled = scheduler.scale_model_input(torch.ones(2, 4, 2, 2), scheduler.timesteps[0])
    np.testing.assert_allclose(scaled[:, 0, 0, 0], [1 / 2**0.5, 1 / 10**0.5], rtol=1e-6)


def test_where_it_is_not_known_all_is_as_it_was():
    scheduler, _, levels = followed(known=False)
    scheduler.set_timesteps(num_inference_steps=5)
    assert scheduler.timesteps.tolist() == [[1.0, 3.0]]
    rows = torch.ones(2, 4, 2, 2)
    assert scheduler.scale_model_input(rows, 1.0) is rows
    assert not levels.read


@pytest.mark.parametrize("kind", ["DDIMScheduler", "ScoreSdeVeScheduler"])
def test_a_scheduler_without_levels_beside_its_times_stays_as_it_was(kind):
    scheduler, plain, _ = followed(known=True, kind=kind)
    assert scheduler is plain

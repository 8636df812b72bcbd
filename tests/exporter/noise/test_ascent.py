"""Noise that climbs a reward: each picture alone, no further than noise goes, and never to less than it began with."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from engines.errors import UnsupportedError
from exporter.noise.ascent import AscentOptions, ascend

SHAPE = (2, 4, 8, 8)


@pytest.fixture
def start():
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def rate():
    """How much of a direction there is in each noise."""
    direction = torch.randn(SHAPE[1:], generator=torch.Generator().manual_seed(4))
    return lambda noise: 10 * (noise * direction).flatten(1).sum(1)


def test_the_reward_rises_and_the_noise_stays_as_long_as_noise_is(start, rate):
    told = []
    found = ascend(rate, start, AscentOptions(iterations=20), lambda *seen: told.append(seen))
    assert found.rewards.shape == (21, 2)
    assert found.rewards[0] == pytest.approx(rate(start).double().numpy())
    assert (found.rewards[-1] > found.rewards[0] + 100).all()
    assert (found.noise.dtype, found.noise.shape) == (np.float32, SHAPE)
    assert rate(torch.from_numpy(found.noise)).numpy() == pytest.approx(found.rewards.max(0), rel=1e-5)
    assert [number for number, _ in told] == list(range(21))
    lengths = {
        pull: np.linalg.norm(ascend(rate, start, AscentOptions(iterations=20, pull=pull)).noise.reshape(2, -1), axis=1)
        for pull in (0.0, 10.0)
    }
    assert (lengths[0.0] > 1.2 * math.sqrt(255)).all()
    assert lengths[10.0] == pytest.approx(math.sqrt(255), rel=0.1)


def test_steps_are_those_of_clipped_gradients_with_nesterovs_momentum(start, rate):
    asked = AscentOptions(iterations=3, rate=2.0, weight=0.5, pull=0.1, clip=0.05)
    noise, speed, seen = start.clone(), torch.zeros(SHAPE), []
    for _ in range(3):
        noise.requires_grad_()
        length = noise.flatten(1).norm(dim=1)
        loss = 0.1 * (length**2 / 2 - 255 * length.log()) - 0.5 * rate(noise)
        (gradient,) = torch.autograd.grad(loss.sum(), noise)
        gradient = gradient * (0.05 / gradient.flatten(1).norm(dim=1)).clamp(max=1)[:, None, None, None]
        speed = 0.9 * speed + gradient
        noise = (noise - 2.0 * (gradient + 0.9 * speed)).detach()
        seen.append(rate(noise).numpy())
    assert ascend(rate, start, asked).rewards[1:] == pytest.approx(np.stack(seen), rel=1e-4)


def test_pictures_do_not_know_of_each_other(start, rate):
    asked = AscentOptions(iterations=4)
    both = ascend(rate, start, asked)
    alone = [ascend(rate, start[index : index + 1], asked) for index in range(2)]
    assert both.noise == pytest.approx(np.concatenate([each.noise for each in alone]), abs=1e-5)


def test_each_picture_keeps_the_best_that_was_seen(start):
    """A reward that is steep on one side of its peak: the ascent goes too far, and what it passed counts."""

    def peak(noise):
        return -(noise.mean((1, 2, 3)) - 0.03).abs()

    found = ascend(peak, start * 0.5, AscentOptions(iterations=12, weight=1000.0))
    best = found.rewards.argmax(0)
    assert ((best > 0) & (best < 12)).all()
    assert peak(torch.from_numpy(found.noise)).double().numpy() == pytest.approx(found.rewards.max(0), abs=1e-6)


def test_what_is_no_number_is_refused(start):
    with pytest.raises(UnsupportedError, match=r"after 0 gradients the reward is NaN or infinite\. Take a smaller rate"):
        ascend(lambda noise: noise.sum((1, 2, 3)) / 0, start, AscentOptions())
    with pytest.raises(UnsupportedError, match="a gradient is NaN or infinite"):
        ascend(lambda noise: (noise.sum((1, 2, 3)) * 0).sqrt(), start, AscentOptions())


def test_networks_that_stop_the_gradient_are_told(start):
    with pytest.raises(UnsupportedError, match="no gradient comes from the picture to the noise"):
        ascend(lambda noise: noise.detach().sum((1, 2, 3)), start, AscentOptions())


def test_a_networks_weights_stay_what_they_are(start):
    network = nn.Conv2d(4, 1, 3).requires_grad_(requires_grad=False)
    before = network.weight.clone()
    ascend(lambda noise: network(noise).sum((1, 2, 3)), start, AscentOptions(iterations=2))
    assert network.weight.grad is None
    assert torch.equal(network.weight, before)

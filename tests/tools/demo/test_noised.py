"""Latents get the noise of their time, and errors in much noise count more."""

import torch

from tools.demo.training.noised import MOST, error, noised
from tools.demo.training.unet import schedule


def test_the_latent_is_what_noise_and_time_leave_of_it():
    torch.manual_seed(0)
    clean = torch.randn(64, 4, 8, 8)
    noisy, at, noise = noised(clean)
    kept, _ = schedule()
    signal = kept[at].view(-1, 1, 1, 1)
    torch.testing.assert_close((noisy - (1 - signal).sqrt() * noise) / signal.sqrt(), clean, atol=1e-3, rtol=1e-3)
    assert len(at.unique()) > 32


def test_errors_in_much_noise_count_more_up_to_a_bound():
    noise = torch.zeros(1, 4, 8, 8)
    costs = [error(noise + 1, noise, torch.tensor([time])).item() for time in (300, 600, 800, 999)]
    assert costs == sorted(costs)
    assert costs[-1] == MOST
    assert error(noise, noise, torch.tensor([5])) == 0


def test_much_noise_is_drawn_more_often_where_that_is_asked_for():
    clean = torch.zeros(4000, 4, 8, 8)
    torch.manual_seed(0)
    plain, much = noised(clean)[1], noised(clean, much=True)[1]
    assert 450 < plain.float().mean() < 550
    assert 640 < much.float().mean() < 690
    assert int(much.max()) <= 999
    # A share of x² of all times lies below the share x of the range.
    assert 0.06 < (much < 300).float().mean() < 0.12

"""The demo's editing model: trained here by a change of low rank, and what it does to pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.numpy import load_file

from tools.demo.train_edit import FIRST, Pool, train, widen

DEMO = Path("recipes/demo")


@pytest.fixture(scope="module")
def demo():
    return StableDiffusionXLPipeline.from_pretrained(DEMO, dtype=torch.float32)


def test_a_widened_denoiser_predicts_as_before_whatever_the_picture():
    latent, states = torch.randn(1, 4, 8, 8), torch.randn(1, 32, 160)
    extra = {"text_embeds": torch.randn(1, 96), "time_ids": torch.zeros(1, 6)}
    given = {"timestep": 5, "encoder_hidden_states": states, "added_cond_kwargs": extra, "return_dict": False}
    unet = StableDiffusionXLPipeline.from_pretrained(DEMO, dtype=torch.float32).unet
    with torch.no_grad():
        before = unet(latent, **given)[0]
        widen(unet)
        after = unet(torch.cat([latent, torch.randn(1, 4, 8, 8)], 1), **given)[0]
    torch.testing.assert_close(after, before)
    assert unet.config.in_channels == 8


def test_the_pool_has_a_text_for_each_edit_and_none_where_it_is_not_said(demo):
    pool = Pool(demo, 6)
    assert pool.given.shape == pool.asked(torch.arange(6)).shape == (6, 4, 8, 8)
    states, pooled = pool.text(torch.tensor([2, 2, 3]), np.array([True, False, False]))
    assert states.shape == (3, 32, 160)
    assert pooled.shape == (3, 96)
    assert torch.equal(states[1], states[2])
    assert not torch.equal(states[0], states[1])


@pytest.mark.long
def test_a_cut_training_goes_on_as_if_it_had_not_been(tmp_path):
    whole = train(DEMO, tmp_path / "whole", 4, batch=2, pool=16)
    train(DEMO, tmp_path / "cut", 4, batch=2, pool=16, stop_at=2)
    resumed = train(DEMO, tmp_path / "cut", 4, batch=2, pool=16, resume=True)
    first, second = load_file(whole), load_file(resumed)
    assert set(first) == set(second)
    assert first[FIRST].shape == (80, 8, 3, 3)
    for name, value in first.items():
        np.testing.assert_allclose(value.astype(np.float32), second[name].astype(np.float32), atol=1e-3)

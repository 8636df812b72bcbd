"""The demo's editing model: trained here by a change of low rank, and what it does to pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.numpy import load_file
from safetensors.torch import save_file

from tools.demo.train_edit import SEEN, WHOLE, Pool, adapt, learned, taught, train, widen

DEMO = Path("recipes/demo")


@pytest.fixture(scope="module")
def demo():
    return StableDiffusionXLPipeline.from_pretrained(DEMO, dtype=torch.float32)


def test_a_widened_denoiser_reads_the_picture_as_a_little_more_of_the_noisy_latent():
    latent, given = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    unet = StableDiffusionXLPipeline.from_pretrained(DEMO, dtype=torch.float32).unet
    with torch.no_grad():
        plain, seen = unet.conv_in(latent), unet.conv_in(latent + SEEN * given)
        widen(unet)
        torch.testing.assert_close(unet.conv_in(torch.cat([latent, torch.zeros_like(given)], 1)), plain)
        torch.testing.assert_close(unet.conv_in(torch.cat([latent, given], 1)), seen)
    assert unet.config.in_channels == 8


def test_every_layer_learns_whole_or_by_low_rank():
    unet = StableDiffusionXLPipeline.from_pretrained(DEMO, dtype=torch.float32).unet
    adapt(unet)
    still = {name.partition(".")[0] for name, value in unet.named_parameters() if value.ndim > 1 and not value.requires_grad}
    outer = {name for name, value in unet.named_parameters() if name.startswith(WHOLE) and not value.requires_grad}
    assert not outer
    assert not [name for name in learned(unet) if name.startswith(WHOLE) and "lora" in name]
    # What low rank adds to is frozen, and so are the embeddings of time and size.
    frozen = [name for name, value in unet.named_parameters() if value.ndim > 1 and not value.requires_grad]
    assert all("base_layer" in name or "embedding" in name for name in frozen)
    assert {"time_embedding", "add_embedding"} <= still


def test_the_pool_has_a_text_for_each_edit_and_none_where_it_is_not_said(demo):
    pool = Pool(demo, 6)
    assert pool.given.shape == pool.asked(torch.arange(6)).shape == (6, 4, 8, 8)
    states, pooled = pool.text(torch.tensor([2, 2, 3]), np.array([True, False, False]))
    assert states.shape == (3, 32, 160)
    assert pooled.shape == (3, 96)
    assert torch.equal(states[1], states[2])
    assert not torch.equal(states[0], states[1])


def test_a_training_starts_from_what_an_earlier_one_learned(tmp_path):
    first, second = (StableDiffusionXLPipeline.from_pretrained(DEMO, dtype=torch.float32).unet for _ in range(2))
    adapt(first)
    with torch.no_grad():
        for weight in first.parameters():
            weight.add_(0.5 * weight.requires_grad)
    save_file(learned(first), tmp_path / "edit.safetensors")
    adapt(second)
    taught(second, tmp_path / "edit.safetensors")
    both = [(one, other) for one, other in zip(learned(first).values(), learned(second).values(), strict=True)]
    assert both
    assert all(torch.equal(one, other) for one, other in both)


@pytest.mark.long
def test_a_cut_training_goes_on_as_if_it_had_not_been(tmp_path):
    whole = train(DEMO, tmp_path / "whole", 4, batch=2, pool=16)
    train(DEMO, tmp_path / "cut", 4, batch=2, pool=16, stop_at=2)
    resumed = train(DEMO, tmp_path / "cut", 4, batch=2, pool=16, resume=True)
    first, second = load_file(whole), load_file(resumed)
    assert set(first) == set(second)
    assert first["conv_in.weight"].shape == (80, 8, 3, 3)
    for name, value in first.items():
        np.testing.assert_allclose(value.astype(np.float32), second[name].astype(np.float32), atol=1e-3)

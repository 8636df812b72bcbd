"""A ControlNet of the demo: trained here, and what it does to its pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionXLControlNetPipeline, StableDiffusionXLPipeline
from PIL import Image
from safetensors.numpy import load_file

from tools.demo.conditioned import counted, edge_cases, verdict
from tools.demo.train_controlnet import build, train

DEMO, OWN = Path("recipes/demo"), Path("recipes/demo-controlnet")
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def demo():
    return StableDiffusionXLPipeline.from_pretrained(DEMO, dtype=torch.float32)


def test_it_begins_as_the_denoiser_s_first_half_and_adds_nothing(demo):
    made = build(demo.unet)
    ours, theirs = made.state_dict(), demo.unet.state_dict()
    copied = [
        name for name in ours if name.startswith(("conv_in", "time_embedding", "add_embedding", "down_blocks", "mid_block"))
    ]
    assert len(copied) > 50
    assert all(torch.equal(ours[name], theirs[name]) for name in copied if "mid_block.resnets.1" not in name)
    latent, states = torch.randn(1, 4, 8, 8), torch.randn(1, 32, 160)
    extra = {"text_embeds": torch.randn(1, 96), "time_ids": torch.zeros(1, 6)}
    down, mid = made(latent, torch.tensor(5), states, torch.rand(1, 3, 64, 64), added_cond_kwargs=extra, return_dict=False)
    assert not any(each.any() for each in (*down, mid))
    assert not (OWN / WEIGHTS).stat().st_size > 6e6


@pytest.mark.long
def test_a_cut_training_goes_on_as_if_it_had_not_been(tmp_path):
    whole = train(DEMO, tmp_path / "whole", 4, batch=2)
    train(DEMO, tmp_path / "cut", 4, batch=2, stop_at=2)
    resumed = train(DEMO, tmp_path / "cut", 4, batch=2, resume=True)
    first, second, shipped = (load_file(folder / WEIGHTS) for folder in (whole, resumed, OWN))
    assert set(first) == set(second) == set(shipped)
    assert {name: value.shape for name, value in first.items()} == {name: value.shape for name, value in shipped.items()}
    for name, value in first.items():
        np.testing.assert_allclose(value.astype(np.float32), second[name].astype(np.float32), atol=1e-3)


@pytest.mark.long
def test_objects_are_where_the_edges_are(demo):
    control = ControlNetModel.from_pretrained(OWN, torch_dtype=torch.float32)
    networks = {name: network for name, network in demo.components.items() if network is not None}
    pipeline = StableDiffusionXLControlNetPipeline(
        **networks, controlnet=control, force_zeros_for_empty_prompt=False, add_watermarker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    cases, placed = edge_cases(8), []
    for strength in (0.0, 1.0):
        drawn = pipeline(
            [case.text for case in cases], image=[Image.fromarray(case.given) for case in cases], height=64, width=64,
            num_inference_steps=12, guidance_scale=3.0, controlnet_conditioning_scale=strength, output_type="np",
            generator=torch.Generator().manual_seed(0),
        ).images  # fmt: skip
        pictures = np.round(drawn * 255).astype(np.uint8)
        placed.append(counted([verdict(picture, case) for picture, case in zip(pictures, cases, strict=True)])["placed"])
    assert placed[0] <= 3
    assert placed[1] >= 10

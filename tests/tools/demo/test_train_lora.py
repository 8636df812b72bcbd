"""LoRAs of the demo: trained here, and what they do to its pictures."""

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.numpy import load_file

from tools.demo import captions
from tools.demo.changes import CHANGES, lora_file
from tools.demo.pictures import draw_with
from tools.demo.score import score
from tools.demo.train_lora import RANK, train

DEMO = "recipes/demo"


@pytest.mark.long
def test_a_cut_training_goes_on_as_if_it_had_not_been(tmp_path):
    whole = train("stars", DEMO, tmp_path / "whole", 4, batch=2)
    train("stars", DEMO, tmp_path / "cut", 4, batch=2, stop_at=2)
    resumed = train("stars", DEMO, tmp_path / "cut", 4, batch=2, resume=True)
    first, second = load_file(whole), load_file(resumed)
    assert set(first) == set(second) == set(load_file(lora_file("stars")))
    for name, value in first.items():
        np.testing.assert_allclose(value.astype(np.float32), second[name].astype(np.float32), atol=1e-3)
        assert RANK in value.shape


@pytest.mark.long
@pytest.mark.parametrize("name", CHANGES)
def test_a_lora_does_what_it_learned(name):
    pipeline = StableDiffusionXLPipeline.from_pretrained(DEMO, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    prompts = captions.evaluation_prompts(8)
    before = score(draw_with(pipeline, 12), prompts, change=CHANGES[name])["all"]["right"]
    pipeline.load_lora_weights(lora_file(name))
    after = score(draw_with(pipeline, 12), prompts, change=CHANGES[name])["all"]["right"]
    assert before <= 3
    assert after >= 7

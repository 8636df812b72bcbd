"""What a pipeline's encoder of prompts is asked, and where the run ends."""

import pytest
import torch

from engines.errors import UnsupportedError
from exporter.families.tracing import encodings
from exporter.families.tracing.following.dry_run import Play
from exporter.families.tracing.following.standins import Stepped, outlined
from exporter.families.tracing.texts import text_processors


def run(pipeline, read, ends):
    play = Play(pipeline, torch.zeros, torch.zeros(1))
    found = encodings.recorded(play, text_processors.of(pipeline), read, cut=False, ends=ends)
    with outlined(), pytest.raises(Stepped):
        play(prompt=["A cat"], negative_prompt=["dogs"], true_cfg_scale=2.0, height=32, width=32, num_inference_steps=2)
    return found


def test_calls_that_only_warn_are_told_apart(pipeline):
    read = {}
    (first,) = run(pipeline, read, 1)
    assert [(call.tokenizer, call.texts, call.again) for call in first.tokens] == [
        ("tokenizer", ("A cat",), False), ("tokenizer", ("A cat",), True),
        ("tokenizer_2", ("A cat",), False), ("tokenizer_2", ("A cat",), True),
    ]  # fmt: skip
    assert set(read) == {"tokenizer", "tokenizer_2"}
    assert "attention_mask" not in read["tokenizer"]


def test_the_run_ends_after_so_many(pipeline):
    both = run(pipeline, {}, 2)
    assert [each.tokens[0].texts for each in both] == [("A cat",), ("dogs",)]
    assert all(each.found is not None for each in both)


def test_a_text_that_is_tokenized_outside_the_encoder_is_told(pipeline):
    play = Play(pipeline, torch.zeros, torch.zeros(1))
    encodings.recorded(play, text_processors.of(pipeline), {}, cut=False)
    with pytest.raises(UnsupportedError, match="FluxPipeline reads its prompt within its call"):
        play.pipeline.tokenizer(["A cat"], return_tensors="pt")

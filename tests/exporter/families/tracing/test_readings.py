"""How texts are read."""

import torch

from exporter.families.tracing.dry_run import NEGATIVE, POSITIVE
from exporter.families.tracing.readings import AskedTokens, Reading, branch_of


def test_a_text_is_read_in_its_frame():
    reading = Reading("tokenizer", 77, masked=True, before="Draw: ", after=" <end>", lower=True, special=True)
    assert reading.shown("  A Cat ") == "Draw: a cat <end>"


def test_what_is_looked_at_of_tokens_is_noted():
    read: set[str] = set()
    tokens = AskedTokens({"input_ids": torch.zeros(1), "attention_mask": torch.ones(1)}, read)
    assert tokens.to("cpu").input_ids is tokens["input_ids"]
    assert read == {"input_ids"}
    assert not hasattr(tokens, "special_tokens_mask")
    assert dict(tokens.items()).keys() == read == {"input_ids", "attention_mask"}


def test_a_text_is_the_prompt_or_the_negative_one():
    assert branch_of(f"draw: {POSITIVE.lower()}") == 1
    assert branch_of(NEGATIVE) == 0
    assert branch_of("") is None

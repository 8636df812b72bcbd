"""How texts are read."""

import pytest
import torch

from engines.errors import UnsupportedError
from exporter.families.tracing.following.dry_run import NEGATIVE, POSITIVE, Encoding, TokenCall
from exporter.families.tracing.texts.readings import AskedTokens, Reading, branch_of, entries


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


def test_what_is_handed_on_of_tokens_is_noted():
    read: set[str] = set()
    given = dict(**AskedTokens({"input_ids": torch.zeros(1), "attention_mask": torch.ones(1)}, read))
    assert given.keys() == read == {"input_ids", "attention_mask"}


def test_what_fills_a_text_up_to_a_multiple_is_to_be_masked():
    ones = torch.ones(1, 8, dtype=torch.long)
    call = TokenCall("tokenizer", (POSITIVE,), {"padding": True, "pad_to_multiple_of": 8}, ones, ones, again=False)
    encoding = Encoding((), {}, tokens=[call])
    with pytest.raises(UnsupportedError, match="SomePipeline fills texts up to a multiple and does not mask it"):
        entries("SomePipeline", [encoding], [[]], 1, lambda _: False, lambda _: None, lambda: None)


def test_a_text_is_the_prompt_or_the_negative_one():
    assert branch_of(f"draw: {POSITIVE.lower()}") == 1
    assert branch_of(NEGATIVE) == 0
    assert branch_of("") is None

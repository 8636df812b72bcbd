"""A tokenizer of transformers as the run time has it."""

import json

import pytest
from tokenizers import Tokenizer

from exporter.models.tokenizer_text import padded
from tools.coverage.parts import clip_tokenizer


@pytest.mark.parametrize("side", ["right", "left"])
def test_it_pads_on_the_source_s_side_and_cuts_nothing_off(side):
    source = clip_tokenizer()
    source.padding_side = side
    read = Tokenizer.from_str(padded(source, 8))
    ids = read.encode("ab").ids
    assert ids == source("ab", padding="max_length", max_length=8).input_ids
    assert len(read.encode("a" * 40).ids) > 40


def test_what_it_puts_around_a_text_is_left_out_where_nothing_is_wanted_there():
    source = clip_tokenizer()
    assert json.loads(padded(source, 8, special=False))["post_processor"] is None
    assert Tokenizer.from_str(padded(source, 8, special=False)).encode("ab").ids[0] != source("ab").input_ids[0]
    assert source.backend_tokenizer.padding is None, "the source is as it was"

"""Tokenizers as bundles have them: padded and read as the pipeline does, with or without special tokens."""

import pytest
from tokenizers import Tokenizer

from exporter.families.tracing.texts.readings import Reading
from exporter.families.tracing.texts.tokenizer_files import written
from tools.coverage.parts import clip_tokenizer


@pytest.mark.parametrize("special", [True, False])
def test_the_file_reads_a_text_as_the_pipeline_has_it_read(special):
    source = clip_tokenizer()
    reading = Reading("tokenizer", 9, masked=True, before="", after="", lower=False, special=special)
    entry, text = written("tokenizer", reading, source)
    assert (entry.feeds, entry.mask, entry.length) == ("tokenizer_ids", "tokenizer_mask", 9)
    options = {"padding": "max_length", "max_length": 9, "add_special_tokens": special}
    assert Tokenizer.from_str(text).encode("ab").ids == source("ab", **options)["input_ids"]

"""Texts of which what is quoted is read sign by sign: how a pipeline cuts them, and a tokenizer that does the same."""

import pytest
from diffusers.pipelines.longcat_image.pipeline_longcat_image import split_quotation
from tokenizers import Tokenizer

from engines.errors import UnsupportedError
from exporter.families.tracing.texts import quoted
from exporter.families.tracing.texts.quoted import Quotes
from exporter.families.tracing.texts.readings import Reading
from exporter.families.tracing.texts.tokenizer_files import written
from tools.coverage.parts import spelling_tokenizer


def longcat(text):
    """As LongCat-Image cuts texts."""
    return [piece for part, inside in split_quotation(text) for piece in (part if inside else [part])]


def guillemets(text):
    """«» alone, whatever stands beside them."""
    found, rest = [], text
    while "«" in rest and "»" in rest:
        before, _, rest = rest.partition("«")
        inner, _, rest = rest.partition("»")
        found += [*([before] if before else []), *f"«{inner}»"]
    return [*found, *([rest] if rest else [])]


def test_what_a_pipeline_takes_for_quoted_is_found():
    found = quoted.known("SomePipeline", longcat)
    assert found is not None
    assert (found.words, [first for first, _ in found.pairs]) == (True, ["'", '"', "‘", "“"])  # noqa: RUF001
    assert quoted.known("SomePipeline", guillemets) == Quotes((("«", "»"),), words=False)


def test_a_text_that_is_whole_has_none():
    assert quoted.known("SomePipeline", lambda text: [text]) is None


@pytest.mark.parametrize("pieces", [str.split, list, lambda text: longcat(text.replace("don't", "dont"))])
def test_another_way_to_cut_is_refused(pieces):
    with pytest.raises(UnsupportedError, match="SomePipeline cuts texts into pieces"):
        quoted.known("SomePipeline", pieces)


def test_the_bundle_s_tokenizer_reads_what_is_quoted_sign_by_sign():
    source = spelling_tokenizer("Qwen2Tokenizer", merges=[("e", "d"), ("r", "ed")])
    quotes = quoted.known("SomePipeline", longcat)
    reading = Reading("tokenizer", 40, masked=True, before="", after="", lower=False, special=True, quotes=quotes)
    _, text = written("tokenizer", reading, source)
    read = Tokenizer.from_str(text)
    for each in ("a red 'red' one", 'red "red red"', "red", "don't 'red", "“red”red", ""):
        wanted = [number for piece in longcat(each) for number in source(piece)["input_ids"]]
        got = read.encode(each)
        assert [number for number, real in zip(got.ids, got.attention_mask, strict=True) if real] == wanted
    plain = source("a red 'red' one")["input_ids"]
    assert read.encode("a red 'red' one").ids[: len(plain)] != plain

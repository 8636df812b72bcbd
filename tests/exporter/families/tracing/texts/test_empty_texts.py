"""Empty texts that are not tokenized: what is read in their place, and what is zeros."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from engines.errors import UnsupportedError
from engines.signature import Range
from exporter.families.tracing.facts import Survey
from exporter.families.tracing.following.dry_run import Encoding, TokenCall
from exporter.families.tracing.texts import empty_texts
from exporter.families.tracing.texts.empty_texts import EmptyText
from exporter.families.tracing.texts.readings import Reading
from tools.coverage import bria
from tools.coverage.parts import spelling_tokenizer, t5_tokenizer


def surveyed(made, size):
    for network in made.components.values():
        if isinstance(network, nn.Module):
            network.to("meta")
    return Survey(made, {}, "classifier_free", size, size, 2)


def test_zeros_in_the_place_of_an_empty_negative_prompt_are_told_from_what_is_encoded():
    found = surveyed(bria.bria(), 32)
    assert found.empties == {0: EmptyText(zeros=frozenset({(0, 1)}))}, "the second of what is returned"
    reading = found.readings["negative_tokenizer"]
    assert (reading.empty, reading.open and reading.open.min) == ("", 1), "T5's end of a text alone"
    ids = {"negative_tokenizer_ids": torch.tensor([[[1]]])}
    states = torch.ones(1, 128, 32)
    prompt, negative = empty_texts.emptied(found, 0, [states, states, None], ids)
    assert prompt.all()
    assert not negative.any()
    ids = {"negative_tokenizer_ids": torch.tensor([[[5, 1]]])}
    assert all(each.all() for each in empty_texts.emptied(found, 0, [states, states], ids))


def test_ids_that_a_text_encoder_reads_for_an_empty_text_are_a_text_of_the_tokenizer():
    found = surveyed(bria.fibo(), 64)
    assert found.empties == dict.fromkeys((0, 1), EmptyText("<|begin_of_text|>"))
    assert {name: (each.shown(""), each.open and each.open.min) for name, each in found.readings.items()} == dict.fromkeys(
        ("tokenizer", "negative_tokenizer"), ("<|begin_of_text|>", 1)
    )
    assert found.readings["tokenizer"].shown("a") == "a"


def pipeline(answer):
    """One that has a text encoder, in the place of an empty negative prompt asked for what `answer` says."""
    network = nn.Identity()

    def encode(_prompt, negative):
        ids = [torch.tensor([[7, 8]]), torch.tensor([[9]])] if negative else [torch.tensor([[7, 8]]), *answer]
        for each in ids:
            network(each)
        texts = ("A Xylophone 7", "A Quokka 3")[: 2 if negative else 1]
        calls = [
            TokenCall("tokenizer", (text,), {}, each, torch.ones_like(each), again=False)
            for text, each in zip(texts, ids, strict=False)
        ]
        return [Encoding((), {}, [torch.ones(1, 2), torch.ones(1, 2)], calls)]

    tokenizer = spelling_tokenizer("Qwen2Tokenizer")
    return SimpleNamespace(components={"text_encoder": network}, tokenizer=tokenizer), encode


def test_ids_of_no_text_are_refused_and_so_is_what_is_neither():
    given, encode = pipeline([torch.tensor([[12345]])])
    with pytest.raises(UnsupportedError, match="read the ids 12345 for an empty text, which are no text's"):
        empty_texts.found("It", given, encode("a", "b"), encode)
    given, encode = pipeline([])
    with pytest.raises(UnsupportedError, match="neither a text's nor zeros"):
        empty_texts.found("It", given, encode("a", "b"), encode)


def test_a_tokenizer_that_makes_no_ids_of_an_empty_text_cannot_tell_one():
    reading = Reading(
        "tokenizer", 9, masked=False, before="", after="", lower=False, special=True, open=Range(min=1, typical=4, max=9)
    )
    call = TokenCall("tokenizer", ("A Quokka 3",), {}, torch.ones(1, 1), torch.ones(1, 1), again=False)
    survey = SimpleNamespace(
        empties={0: EmptyText(zeros=frozenset({(0, 0)}))}, encodings=[Encoding((), {}, None, [call])],
        entries={("tokenizer", 0): ("negative_tokenizer", reading)}, pipeline=SimpleNamespace(tokenizer=t5_tokenizer()),
    )  # fmt: skip
    ids = {"negative_tokenizer_ids": torch.tensor([[[1]]])}
    (made,) = empty_texts.emptied(survey, 0, [torch.ones(1, 3)], ids)
    assert not made.any()
    survey.pipeline.tokenizer = spelling_tokenizer("Qwen2Tokenizer")
    with pytest.raises(UnsupportedError, match="no ids of an empty text"):
        empty_texts.emptied(survey, 0, [torch.ones(1, 3)], ids)

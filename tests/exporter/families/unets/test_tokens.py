"""Tokenizers of CLIP: which are read, what words they are given, and rows of ids and weights by hand."""

import json

import numpy as np
import pytest

from engines.errors import RecipeError, UnsupportedError
from exporter.families.unets import tokens
from exporter.recipe.prompts import Prompts
from tests.exporter import models

#: Room for 512 signs, for more than there are, and for two special tokens.
SIZE = 532


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens") / "tokenizer"
    models.vocabulary(folder, "<|endoftext|>")
    return folder


@pytest.fixture
def tokenizer(folder):
    size = len(json.loads((folder / "vocab.json").read_text()))
    return tokens.read(folder, "tokenizer", "text_encoder", size)


def known(tokenizer, *words):
    return [tokenizer.get_vocab()[word] for word in words]


def rows(tokenizer, *texts, length=8, **prompts):
    ids, weights = tokens.rows(tokenizer, texts, length, Prompts(**prompts))
    assert (ids.dtype, weights.dtype, ids.shape) == (np.int64, np.float32, weights.shape)
    return ids.tolist(), weights.astype(float).round(4).tolist()


def test_a_folder_without_a_vocabulary_is_incomplete(tmp_path):
    with pytest.raises(UnsupportedError) as caught:
        tokens.read(tmp_path, "tokenizer_2", "text_encoder_2", 100)
    assert str(caught.value) == (
        f"{tmp_path} has neither vocab.json nor tokenizer.json.\n  Copy the model's tokenizer_2 folder whole."
    )


def test_a_vocabulary_fits_as_many_embeddings_as_it_has_tokens(folder, tokenizer):
    count = len(tokenizer)
    assert len(tokens.read(folder, "tokenizer", "text_encoder", count + 1)) == count
    with pytest.raises(UnsupportedError) as caught:
        tokens.read(folder, "tokenizer", "text_encoder", count - 1)
    assert str(caught.value) == (
        f"{folder} has {count} tokens, text_encoder has room for {count - 1}.\n  Take the tokenizer saved with these weights."
    )


def test_words_are_added_in_their_order_behind_all_others(tokenizer):
    count = len(tokenizer)
    tokens.with_words(tokenizer, ["<zebra>", "<ant>", "<ant>_1"])
    assert known(tokenizer, "<zebra>", "<ant>", "<ant>_1") == [count, count + 1, count + 2]


def test_a_word_that_is_a_token_already_is_refused_by_name_and_all_at_once(tokenizer):
    count = len(tokenizer)
    with pytest.raises(RecipeError) as caught:
        tokens.with_words(tokenizer, ["red</w>", "<new>", "a"])
    assert list(caught.value.problems) == [
        "model.embeddings: 'red</w>' is a token already; give it another with token: <red</w>>",
        "model.embeddings: 'a' is a token already; give it another with token: <a>",
    ]
    assert len(tokenizer) == count


def test_a_row_is_start_words_end_and_padding(tokenizer):
    start, end = known(tokenizer, "<|startoftext|>", "<|endoftext|>")
    a, red, circle = known(tokenizer, "a</w>", "red</w>", "circle</w>")
    ids, weights = rows(tokenizer, "A red circle", "")
    assert ids == [[start, a, red, circle, end, end, end, end], [start, *[end] * 7]]
    assert weights == [[1.0] * 8] * 2
    cut, _ = rows(tokenizer, "red red red", length=4)
    assert cut == [[start, red, red, end]]


def test_chunks_each_have_their_own_start_and_end(tokenizer):
    start, end = known(tokenizer, "<|startoftext|>", "<|endoftext|>")
    a, red = known(tokenizer, "a</w>", "red</w>")
    ids, weights = rows(tokenizer, "a red a red a", "red", length=4, chunks=3)
    assert ids == [
        [start, a, red, end, start, a, red, end, start, a, end, end],
        [start, red, end, end, start, end, end, end, start, end, end, end],
    ]
    assert weights == [[1.0] * 12] * 2


@pytest.mark.parametrize(
    ("syntax", "text", "counts"),
    [
        ("a1111", "a (red:1.5) a", [1, 1, 1.5, 1, 1, 1]),
        ("a1111", "(red) [a]", [1, 1.1, 0.9091, 1, 1, 1]),
        ("compel", "a red++", [1, 1, 1.21, 1, 1, 1]),
    ],
)
def test_weights_are_those_of_the_syntax(tokenizer, syntax, text, counts):
    ids, weights = rows(tokenizer, text, length=6, weights=syntax)
    assert weights == [counts]
    brackets = [number for word, number in tokenizer.get_vocab().items() if set(word.removesuffix("</w>")) & set("()[]+:.15")]
    assert not set(ids[0]) & set(brackets), "what says a weight is no word"


def test_a_break_begins_a_chunk(tokenizer):
    start, end = known(tokenizer, "<|startoftext|>", "<|endoftext|>")
    a, red = known(tokenizer, "a</w>", "red</w>")
    ids, _ = rows(tokenizer, "a BREAK red", length=4, chunks=2, weights="a1111")
    assert ids == [[start, a, end, end, start, red, end, end]]


@pytest.mark.parametrize("prompts", [{}, {"chunks": 2}, {"weights": "a1111"}])
def test_a_word_of_several_vectors_is_written_out(tokenizer, prompts):
    """As diffusers writes it out, in chunks and with weights too."""
    tokens.with_words(tokenizer, ["<cat>", "<cat>_1"])
    start, first, second = known(tokenizer, "<|startoftext|>", "<cat>", "<cat>_1")
    ids, _ = rows(tokenizer, "<cat>", length=6, **prompts)
    assert ids[0][:3] == [start, first, second]


def test_a_vocabulary_that_is_made_up_spells_bytes():
    made = tokens.spelling({"pad_token": "!"}, SIZE, 6)
    assert made.get_vocab()["!"] == 0
    start, end = known(made, "<|startoftext|>", "<|endoftext|>")
    assert (start, end) == (SIZE - 2, SIZE - 1)
    a, b = known(made, "a", "b</w>")
    assert made("ab", padding="max_length", max_length=6)["input_ids"] == [start, a, b, end, 0, 0]
    assert made.model_max_length == 6
    special = made.special_tokens_map, tokens.spelling({}, SIZE, 6).special_tokens_map
    assert [each["pad_token"] for each in special] == ["!", "<|endoftext|>"]
    assert [each["unk_token"] for each in special] == ["<|endoftext|>"] * 2


def test_a_small_vocabulary_has_the_special_tokens_last_all_the_same():
    made = tokens.spelling({}, 10, 6)
    assert sorted(made.get_vocab().values()) == list(range(10))
    assert known(made, "!", "<|startoftext|>", "<|endoftext|>") == [0, 8, 9]

import json
import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import BundleError, UnsupportedError
from engines.manifest import Tokenizer
from engines.tokenizer import TextTokenizer
from tests.engines import small

PAD, START, END, UNKNOWN, A, RED = range(6)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "t.json"
    path.write_text(small.tokenizer_json(), encoding="utf-8")
    return path


def test_text_becomes_padded_ids(file):
    ids, _, cuts, *_ = TextTokenizer(file, 6).encode(["a RED cat", ""])
    assert ids.dtype == np.int64
    assert ids.tolist() == [[START, A, RED, UNKNOWN, END, PAD], [START, END, PAD, PAD, PAD, PAD]]
    assert cuts == ("", "")


def test_the_manifest_s_length_counts_not_the_file_s(file):
    assert TextTokenizer(file, 9).encode(["a"])[0].shape == (1, 9)


def test_a_long_text_keeps_its_end_token_and_says_what_was_cut(file, caplog):
    with caplog.at_level(logging.WARNING):
        ids, _, cuts, *_ = TextTokenizer(file, 5).encode(["a red  square", "a red square on the sea"])
    assert ids[1, -1] == END
    assert ids[1, 0] == START
    assert cuts == ("", "on the sea")
    assert [record.getMessage() for record in caplog.records] == [
        "the prompt is too long; the model does not read its end: 'on the sea'"
    ]


@given(st.text())
def test_every_text_fits(file, text):
    tokenizer = TextTokenizer(file, 6)
    ids, _, (cut,), *_ = tokenizer.encode([text])
    assert ids.shape == (1, 6)
    assert END in ids[0]
    assert text.endswith(cut)


@pytest.mark.parametrize("damage", ["", "{}", '{"model": {"type": "BPE", "vocab": 1}}'])
def test_a_damaged_file_is_a_bundle_error(tmp_path, damage):
    (tmp_path / "t.json").write_text(damage)
    with pytest.raises(BundleError, match="not a tokenizer"):
        TextTokenizer(tmp_path / "t.json", 6)


def test_a_file_without_padding_is_a_bundle_error(tmp_path):
    content = json.loads(small.tokenizer_json())
    content["padding"] = None
    (tmp_path / "t.json").write_text(json.dumps(content))
    with pytest.raises(BundleError, match="which id pads"):
        TextTokenizer(tmp_path / "t.json", 6)


def test_a_length_without_room_for_the_special_tokens_is_a_bundle_error(file):
    with pytest.raises(BundleError, match="more than 1 ids"):
        TextTokenizer(file, 1)


def test_a_word_of_several_vectors_is_written_out(tmp_path):
    content = json.loads(small.tokenizer_json())
    size = len(content["model"]["vocab"])
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    for number, word in enumerate(("<cat>", "<cat>_1", "<cat>_2", "<dog>")):
        content["added_tokens"].append({"id": size + number, "content": word, **flags})
    (tmp_path / "t.json").write_text(json.dumps(content))
    tokenizer = TextTokenizer(tmp_path / "t.json", 9)
    one, two, three, dog = range(size, size + 4)
    assert tokenizer.encode(["a <cat> red <dog>"])[0].tolist() == [[START, A, one, two, three, RED, dog, END, PAD]]
    ids, _, (cut,), *_ = tokenizer.encode(["a a a a a <cat>"])
    assert ids.tolist() == [[START, A, A, A, A, A, one, two, END]]
    assert cut == "<cat>_2"


def test_a_long_text_goes_on_in_the_next_chunk_and_short_ones_leave_it_empty(file, caplog):
    with caplog.at_level(logging.WARNING):
        found = TextTokenizer(file, 12, 3).encode(["a red a", "", "a a a a a a red"])
    empty = [START, END, PAD, PAD]
    assert found.ids.tolist() == [
        [START, A, RED, END, START, A, END, PAD, *empty],
        empty * 3,
        [START, A, A, END] * 3,
    ]
    assert found.mask.tolist()[0] == [1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 0, 0]
    assert found.unread == ("", "", "red")
    assert "the model does not read its end: 'red'" in caplog.text
    assert (found.weights == 1).all()


def test_weights_stand_where_their_tokens_do(file):
    found = TextTokenizer(file, 8, 2, "a1111").encode(["a (red:2) [a]", "(red) BREAK a"])
    assert found.ids.tolist() == [[START, A, RED, END, START, A, END, PAD], [START, RED, END, PAD, START, A, END, PAD]]
    expected = [[1, 1, 2, 1, 1, 1 / 1.1, 1, 1], [1, 1.1, 1, 1, 1, 1, 1, 1]]
    assert np.allclose(found.weights, expected)
    assert found.weights.dtype == np.float32


def test_a_bundle_s_tokenizer_has_room_for_so_many_groups_that_count_less(file):
    entry = Tokenizer(file="t.json", length=8, feeds="ids", weights="weights", syntax="compel", downweighted=1)
    tokenizer = TextTokenizer.of(file, entry)
    assert np.allclose(tokenizer.encode(["a (red)0.5"]).weights, [[1, 1, 0.5, 1, 1, 1, 1, 1]])
    with pytest.raises(UnsupportedError, match="2 groups of words count less than 1"):
        tokenizer.encode(["(a)0.5 red-"])


def test_brackets_are_literal_unless_a_syntax_is_named(file):
    assert TextTokenizer(file, 12).encode(["(red:2)"]).ids.tolist()[0].count(UNKNOWN) >= 3


def test_a_text_of_open_length_has_no_more_ids_than_it_needs_but_for_whole_multiples(file):
    found = TextTokenizer(file, 6, multiple=1).encode(["a red", "", "a a a a a red"])
    assert found.lengths.tolist() == [4, 2, 6]
    assert found.ids[0].tolist() == [START, A, RED, END, 0, 0]
    assert found.mask.tolist() == [[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0], [1] * 6]
    assert found.unread == ("", "", "a red")
    found = TextTokenizer(file, 8, multiple=4).encode(["a red a", "a"])
    assert found.lengths.tolist() == [8, 4]
    assert found.ids[0].tolist() == [START, A, RED, A, END, PAD, PAD, PAD]
    assert found.mask[1].tolist() == [1, 1, 1, 0, 0, 0, 0, 0]


def test_a_text_must_not_have_a_token_that_stands_for_a_picture(file):
    entry = Tokenizer(file="t.json", length=9, feeds="ids", before="a <image> ", lower=True, pictures=("<image>", "<video>"))
    tokenizer = TextTokenizer.of(file, entry)
    assert tokenizer.encode(["red"]).ids.shape == (1, 9)  # the frame has its own
    for text, token in (("red <image>", "<image>"), ("<IMAGE>", "<image>"), ("a <video> b", "<video>")):
        with pytest.raises(UnsupportedError, match=f"^{token} in a prompt stands for a picture to this model"):
            tokenizer.encode(["red", text])
    assert TextTokenizer.of(file, entry.model_copy(update={"pictures": ()})).encode(["red <image>"]).ids.shape == (1, 9)


def test_an_empty_text_is_read_as_what_stands_in_its_place_and_nothing_around_it(file):
    entry = Tokenizer(file="t.json", length=6, feeds="ids", before="a ", after=" a", empty="red")
    ids, *_ = TextTokenizer.of(file, entry).encode(["", "red"])
    assert ids.tolist() == [[START, RED, END, PAD, PAD, PAD], [START, A, RED, A, END, PAD]]

"""Ids as Python lists: what a pipeline does with them before a tensor is made."""

import pytest
import torch
from torch import nn

from engines.errors import UnsupportedError
from exporter.families.tracing.following import listed_ids
from exporter.families.tracing.following.listed_ids import Ids, Pieces
from exporter.families.tracing.following.open_lengths import Repeated
from exporter.families.tracing.following.open_texts import OpenTexts


def answer(texts, options):
    """Of each letter its number, and padding up to `max_length`."""
    rows = [[ord(sign) for sign in text] for text in texts]
    most = options.get("max_length", max(map(len, rows)))
    ids = torch.tensor([row + [0] * (most - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}


def given(texts):
    return listed_ids.lists(texts, {}, answer, lambda text, _: len(text))


@pytest.mark.parametrize(
    ("options", "asked"),
    [({}, True), ({"padding": False}, True), ({"return_tensors": "pt"}, False), ({"padding": "max_length"}, False)],
)
def test_lists_are_what_a_tokenizer_is_asked_for_without_tensors(options, asked):
    assert listed_ids.asked_for(options) == asked


def test_of_a_text_there_is_a_list_and_of_several_a_list_each():
    one, several = given("abc"), given(["abc", "d"])
    assert isinstance(one.input_ids, Ids)
    assert [len(one["input_ids"]), *map(len, several["input_ids"])] == [3, 3, 1]
    with OpenTexts():
        assert torch.tensor([one["input_ids"]]).tolist() == [[97, 98, 99]]
        assert torch.tensor(one["attention_mask"], dtype=torch.bool).tolist() == [True] * 3
    with pytest.raises(AttributeError):
        _ = one.token_type_ids


def test_pieces_are_joined_to_one_text_that_knows_them():
    seen, row = [], []
    for piece in ("say ", "'", "a"):
        row.extend(
            listed_ids.lists(piece, {}, lambda texts, _: seen.append(texts[0]) or answer(texts, {}), lambda *_: 1)["input_ids"]
        )
    assert listed_ids.length(row) == 3
    assert listed_ids.as_tensor(row).tolist() == [ord(sign) for sign in "say 'a"]
    (text,) = seen
    assert (text, text.pieces) == ("say 'a", ("say ", "'", "a"))
    assert Pieces.of(["a", "b"]) == "ab"


def test_padding_cuts_to_the_length_to_which_it_pads():
    asked = []

    def noted(texts, options):
        asked.append((list(texts), dict(options)))
        return answer(texts, options)

    rows = [
        list(listed_ids.lists(text, {"add_special_tokens": False}, noted, lambda text, _: len(text))["input_ids"])
        for text in ("ab", "c")
    ]
    found = listed_ids.padded({"input_ids": rows}, {"padding": "max_length", "max_length": 3})
    assert found["input_ids"].tolist() == [[97, 98, 0], [99, 0, 0]]
    assert asked == [(["ab", "c"], {"add_special_tokens": False, "padding": "max_length", "max_length": 3, "truncation": True})]
    assert listed_ids.padded({"input_ids": [[1, 2]]}, {}) is None


def test_other_data_are_left_to_torch():
    assert [listed_ids.as_tensor(each) for each in (3, [], [1, 2], [[1], [2]])] == [None] * 4
    assert listed_ids.as_tensor(Repeated(2, 3)) is None
    assert listed_ids.length("abc") == 3


def test_what_would_need_the_ids_themselves_is_refused():
    with pytest.raises(UnsupportedError, match="takes single ids out"):
        given("abc")["input_ids"][0]
    with pytest.raises(UnsupportedError, match="puts ids of its own around"):
        listed_ids.as_tensor([1, *given("abc")["input_ids"]])


class Padded(nn.Module):
    """Texts as a list, padded behind their ends by the lengths that they have, as ERNIE-Image does it."""

    def forward(self, one, other):
        with OpenTexts():
            texts = [one, other]
            lengths = torch.tensor([text.shape[0] for text in texts], dtype=torch.long)
            whole = torch.zeros(2, lengths.max().item(), 4)
            for row, text in enumerate(texts):
                whole[row, : text.shape[0], :] = text
            return whole, lengths


def test_the_longest_of_open_lengths_is_a_number_of_the_graph():
    dims = ({0: torch.export.Dim("one", min=1, max=30)}, {0: torch.export.Dim("other", min=1, max=30)})
    program = torch.export.export(Padded(), (torch.rand(5, 4), torch.rand(7, 4)), dynamic_shapes=dims, strict=False)
    for counts in ((3, 9), (9, 3), (4, 4), (1, 30)):
        texts = [torch.rand(count, 4) for count in counts]
        whole, lengths = program.module()(*texts)
        assert lengths.tolist() == list(counts)
        torch.testing.assert_close(whole, nn.utils.rnn.pad_sequence(texts, batch_first=True))

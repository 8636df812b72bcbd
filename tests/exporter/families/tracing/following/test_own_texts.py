"""Texts without what pads them: what a network asks of masks, and what is left of a padded text."""

import pytest
import torch

from engines.errors import UnsupportedError
from exporter.families.tracing.following.dry_run import Leaf
from exporter.families.tracing.following.own_texts import AskedMasks, Ones, as_long, cut, mark, without_padding
from tools.coverage.parts import spelling_tokenizer, t5_tokenizer

MASK = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0]])


@pytest.mark.parametrize(
    ("read", "asked"),
    [
        (lambda mask, _: mask.sum(dim=1).tolist(), True),
        (lambda mask, _: torch.cat([mask, mask]).bool()[0].long().sum().item(), True),
        (lambda mask, states: states[:, : mask.sum(1).max()], True),
        (lambda mask, states: [row[own] for row, own in zip(states, mask.bool(), strict=True)], True),
        (lambda mask, states: (states * mask).sum().item(), False),
        (lambda mask, states: states.masked_fill(~mask.bool(), 0.0).tolist(), False),
        (lambda mask, states: states[:, mask.shape[1] :].tolist(), False),
    ],
)
def test_it_is_noted_whether_python_is_told_what_a_mask_selects(read, asked):
    mask, states = MASK.clone(), torch.rand(2, 5)
    mark([mask, states, None, torch.ones(2, device="meta", dtype=torch.long)])
    with AskedMasks() as found:
        read(mask, states)
    assert found.asked == asked


def test_columns_that_pad_all_texts_are_cut_off_on_either_side():
    ids = torch.arange(10).reshape(2, 5)
    found = cut({"input_ids": ids, "attention_mask": MASK})
    assert found["input_ids"].tolist() == [[0, 1, 2], [5, 6, 7]]
    assert found["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert cut({"input_ids": ids, "attention_mask": MASK.flip(1)})["input_ids"].tolist() == [[2, 3, 4], [7, 8, 9]]


def test_what_was_encoded_of_a_padded_text_is_cut_by_its_own_mask():
    states, layers, mask = torch.rand(1, 5, 4), torch.rand(1, 2, 5), MASK[1:]
    leaves = [
        Leaf("states", (2, 4), torch.float32, open={0: "length"}),
        Leaf("layers", (2, 2), torch.float32, open={1: "length"}),
        Ones("length", torch.int64),
        None,
    ]
    found = without_padding([states, layers, mask, None], leaves)
    assert torch.equal(found[0], states[:, :2])
    assert torch.equal(found[1], layers[..., :2])
    assert found[3] is None
    whole = without_padding([states], [Leaf("states", (5, 4), torch.float32, open={0: "length"})])
    assert whole[0] is states, "a text of a pipeline that pads none is as long as it is"


def test_the_mask_of_a_text_without_padding_is_ones():
    assert torch.equal(Ones("length", torch.int32).made(2, 3), torch.ones(2, 3, dtype=torch.int32))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("length", [4, 9, 16])
def test_a_text_asked_for_so_many_ids_is_cut_or_filled_as_its_tokenizer_does_it(side, length):
    tokenizer = spelling_tokenizer("GemmaTokenizer")
    tokenizer.padding_side = side
    asked = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
    for text in ("", "a cat", "a black cat"):
        whole = dict(tokenizer([text], max_length=16, **asked))
        wanted = tokenizer([text], max_length=length, **asked)
        found = as_long(whole, length, tokenizer)
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_tokenizer_that_ends_texts_cannot_be_cut_off():
    given = {"input_ids": torch.ones(1, 8), "attention_mask": torch.ones(1, 8)}
    with pytest.raises(UnsupportedError, match="cut to the length of another by a tokenizer that ends texts"):
        as_long(given, 4, t5_tokenizer())
    assert as_long(given, 8, t5_tokenizer()) == given

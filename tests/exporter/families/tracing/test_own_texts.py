"""Texts without what pads them: what a network asks of masks, and what is left of a padded text."""

import pytest
import torch

from exporter.families.tracing.dry_run import Leaf
from exporter.families.tracing.own_texts import AskedMasks, Ones, cut, mark, without_padding

MASK = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0]])


@pytest.mark.parametrize(
    ("read", "asked"),
    [
        (lambda mask, _: mask.sum(dim=1).tolist(), True),
        (lambda mask, _: torch.cat([mask, mask]).bool()[0].long().sum().item(), True),
        (lambda mask, states: states[:, : mask.sum(1).max()], True),
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

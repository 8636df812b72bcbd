"""What a pipeline's code asks of the mask of a text that is as long as it is."""

import pytest
import torch
from torch import nn

from exporter.families.tracing.open_texts import OpenTexts, known, uniform


class Asked(nn.Module):
    """What pipelines do with masks, one after the other."""

    def forward(self, states, ids):
        with OpenTexts():
            mask = uniform(torch.ones_like(ids))
            chosen = mask.bool()
            pieces = torch.split(states[chosen], chosen.sum(dim=1).tolist(), dim=0)
            rows = [piece[2:] for piece in pieces]
            marks = [torch.ones(row.size(0), dtype=torch.long) for row in rows]
            most = max(row.size(0) for row in rows)
            whole = torch.stack([torch.cat([row, row.new_zeros(most - row.size(0))]) for row in marks])
            if not whole.repeat(1, 1).view(1, most).all():
                raise RuntimeError("all of the text is the text's")
            count = mask.sum().item()
            return rows[0][:, :9] + count, states[0][chosen[0]][:30]


def test_lengths_stay_open_where_masks_are_asked_what_they_select():
    length = torch.export.Dim("length", min=4, max=30)
    inputs = torch.rand(1, 7, 4), torch.zeros(1, 7, dtype=torch.long)
    program = torch.export.export(Asked(), inputs, dynamic_shapes=({1: length}, {1: length}), strict=False)
    for count in (4, 12, 30):
        states = torch.rand(1, count, 4)
        rows, all_of_it = program.module()(states, torch.zeros(1, count, dtype=torch.long))
        torch.testing.assert_close(rows, states[0, 2:] + count)
        torch.testing.assert_close(all_of_it, states[0])


def test_what_is_not_known_is_computed():
    with OpenTexts():
        ones = torch.ones(2, 3)
        assert known(ones) == 1
        assert known(ones * 2) is None
        assert known(torch.cat([ones, torch.zeros(2, 3)])) is None
        assert known(torch.cat([ones, ones[:1]])) == 1
        assert ones.sum(1).tolist() == [3, 3]
        assert bool(torch.tensor([True, False]).all()) is False
        part = torch.arange(6.0).reshape(2, 3)[torch.tensor([[True, False, True], [False, True, False]])]
        assert part.tolist() == [0, 2, 4]
        assert known(torch.full((2,), 7)) == 7
        assert torch.full((2,), 7).tolist() == [7, 7]
        assert known(torch.full((2,), 0.5)) is None
        ones[0, 0] = 0
        assert known(ones) is None
        assert ones.sum().item() == 5


@pytest.mark.parametrize("change", [lambda ones: ones.fill_(3), lambda ones: ones.mul_(2)])
def test_what_is_changed_in_place_is_no_longer_known(change):
    with OpenTexts():
        ones = torch.ones(2)
        change(ones)
        assert known(ones) is None

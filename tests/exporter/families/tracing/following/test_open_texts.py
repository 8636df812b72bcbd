"""What a pipeline's code asks of the mask of a text that is as long as it is."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from exporter.families.tracing.following.open_texts import Ends, OpenTexts, known, padded, uniform


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


class Kept(nn.Module):
    """What Kandinsky 3 does with texts: states of what pads them are zeros, of which one is kept behind the longest text."""

    def forward(self, ids):
        with OpenTexts():
            ids, mask = padded(ids, SimpleNamespace(pad_token_id=7), 1)
            mask = mask.to("cpu")
            states = torch.stack([ids.float()] * 2, -1)
            states[mask == 0] = torch.zeros_like(states[mask == 0])
            length = mask.sum(-1).max() + 1
            own = states[mask == 1]
            return states[:, :length], mask[:, :length], own, ids


def test_a_text_with_padding_behind_it_is_as_long_as_its_mask_says():
    dims = ({1: torch.export.Dim("length", min=1, max=40)},)
    program = torch.export.export(Kept(), (torch.ones(1, 5, dtype=torch.long),), dynamic_shapes=dims, strict=False)
    for count in (1, 5, 40):
        states, mask, own, ids = program.module()(torch.arange(1, count + 1)[None])
        assert ids.tolist() == [[*range(1, count + 1), 7]]
        assert mask.tolist() == [[1] * count + [0]]
        assert states[0, :, 0].tolist() == [*range(1, count + 1), 0]
        assert own[:, 1].tolist() == [*range(1, count + 1)]


def test_a_text_without_padding_is_all_its_own():
    ids, mask = padded(torch.ones(1, 3, dtype=torch.long), SimpleNamespace(pad_token_id=7), 0)
    assert (ids.shape, known(mask)) == ((1, 3), 1)
    _, mask = padded(ids, SimpleNamespace(pad_token_id=7), 2)
    assert known(mask) == Ends(1, 0, 2)
    with OpenTexts():
        assert known(mask.bool() == 0) == Ends(first=False, last=True, length=2)
        assert known(mask + mask) is None
        assert known(mask[:, :2]) is None
        assert mask.sum(1).tolist() == [3]
        assert mask.sum().item() == 3


class Padded(nn.Module):
    """A network that takes a shorter way where a mask selects all."""

    def forward(self, states, mask):
        with OpenTexts():
            mask = mask.to(torch.float32)
            if mask.bool().all() or torch.all(mask == 1):
                return states
            return states * mask[..., None] + 1.0


def test_a_padded_text_s_mask_takes_no_shorter_way():
    """However many the mask of the example selects."""
    states, mask = torch.rand(1, 4, 3), torch.tensor([[0, 1, 1, 1]])
    for example in (mask, torch.ones_like(mask)):
        program = torch.export.export(Padded(), (states, example), strict=False)
        for own in (mask, torch.ones_like(mask)):
            torch.testing.assert_close(program.module()(states, own), states * own[..., None] + 1.0)


class Filled(nn.Module):
    """Nothing of a text is for a second encoder, whose states stand before those of the first."""

    def forward(self, states, more):
        with OpenTexts():
            mask, nothing = uniform(torch.ones_like(states[..., 0]), 1).bool(), uniform(torch.zeros_like(more), 0)
            if not torch.all(nothing == 0) or (nothing != 0).any():
                raise RuntimeError("there is nothing in it")
            masks = zip(states, mask, more, nothing[..., 0].bool(), strict=True)
            return torch.stack([torch.cat([new[own], row[all_], new[~own], row[~all_]]) for row, all_, new, own in masks])


def test_what_is_filled_in_with_zeros_selects_nothing():
    length = torch.export.Dim("length", min=4, max=30)
    inputs = torch.rand(1, 7, 4), torch.rand(1, 3, 4)
    program = torch.export.export(Filled(), inputs, dynamic_shapes=({1: length}, None), strict=False)
    for count in (4, 12):
        states = torch.rand(1, count, 4)
        torch.testing.assert_close(program.module()(states, inputs[1]), torch.cat([states, inputs[1]], 1))


class Masked(nn.Module):
    """What leaves a mask out where all of it selects."""

    def forward(self, values, mask):
        with OpenTexts():
            if not mask.bool().all():
                values = values * mask
            return values


def test_a_mask_of_a_graph_is_applied_whatever_it_selects():
    length = torch.export.Dim("length", min=2, max=9)
    given = torch.rand(1, 4), torch.ones(1, 4)
    made = torch.export.export(Masked(), given, dynamic_shapes=({1: length}, {1: length}), strict=False).module()
    for mask in (torch.ones(1, 3), torch.tensor([[1.0, 0.0, 0.0]])):
        values = torch.rand(1, 3)
        assert torch.equal(made(values, mask), values * mask)
    assert torch.equal(Masked()(*given), given[0]), "a value that is there says so itself"

"""Texts that are filled up while lengths are open: one graph for those that are as long as can be, and for all others."""

import pytest
import torch
from torch.export import Dim

from exporter.families.tracing.following import filled_texts as module
from exporter.families.tracing.following.filled_texts import filled_texts
from exporter.families.tracing.following.open_lengths import largest

MOST = 12


def filled(states, length):
    """What a pipeline does: refuse what is longer, and put zeros behind what is shorter."""
    if length < states.shape[1]:
        raise ValueError("too long")
    if length > states.shape[1]:
        padding = torch.zeros((states.shape[0], length - states.shape[1], states.shape[2]))
        states = torch.cat([states, padding], dim=1)
    return states


class Encoding(torch.nn.Module):
    """Two texts' states, each as long as the longer one, and the first one's as long as any text's."""

    def forward(self, one, other):
        with filled_texts(self):
            length = largest(one.shape[1], other.shape[1])
            both = torch.cat([filled(each, length) for each in (one, other)])
            if (own := one.shape[1]) < MOST:
                one = torch.cat([one, torch.zeros(1, MOST - own, 4).to(one.dtype)], 1)
        return both, one


@pytest.fixture
def exported(monkeypatch):
    monkeypatch.setattr(module, "_ASKING", __name__)
    dims = tuple({1: Dim(name, min=1, max=MOST)} for name in ("one", "other"))
    return torch.export.export(Encoding(), (torch.ones(1, 5, 4), torch.ones(1, 7, 4)), dynamic_shapes=dims).module()


@pytest.mark.parametrize("lengths", [(3, 3), (2, 9), (9, 2), (MOST, 4), (MOST, MOST)])
def test_what_is_as_long_as_can_be_is_filled_with_nothing(exported, lengths):
    one, other = (torch.randn(1, length, 4) for length in lengths)
    both, whole = exported(one, other)
    assert both.shape == (2, max(lengths), 4)
    for got, want in ((both[:1], one), (both[1:], other), (whole, one)):
        assert torch.equal(got[:, : want.shape[1]], want)
        assert not got[:, want.shape[1] :].any()
    assert whole.shape[1] == MOST


def test_lengths_that_are_known_are_compared_as_ever():
    with filled_texts(Encoding()):
        assert filled(torch.ones(1, 3, 4), 5).shape == (1, 5, 4)
        with pytest.raises(ValueError, match="too long"):
            filled(torch.ones(1, 3, 4), 2)

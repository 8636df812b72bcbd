"""A text tower: branches, the empty prompt, what is pooled."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from exporter.families.unets.text import TextEncoder
from exporter.recipe.prompts import Prompts


class Tower(nn.Module):
    def forward(self, ids, *, output_hidden_states):
        assert ids.ndim == 2
        last = ids[..., None].double() * torch.tensor([1.0, 10.0])
        hidden = (last * 0, last + 1, last) if output_hidden_states else None
        return SimpleNamespace(hidden_states=hidden, last_hidden_state=last, text_embeds=ids[:, :1].double())


IDS = torch.tensor([[[5, 6, 6], [5, 1, 6]], [[5, 2, 6], [5, 6, 6]]])


@pytest.mark.parametrize("penultimate", [False, True])
def test_every_branch_is_encoded_by_itself(penultimate):
    found, pooled = TextEncoder(Tower(), penultimate=penultimate, pooled=True, prompts=Prompts())(IDS)
    torch.testing.assert_close(found, IDS[..., None] * torch.tensor([1.0, 10.0]) + penultimate)
    torch.testing.assert_close(pooled, IDS[..., :1].float())
    assert torch.is_tensor(TextEncoder(Tower(), penultimate=penultimate, pooled=False, prompts=Prompts())(IDS))


def test_an_empty_negative_prompt_becomes_zeros_and_an_empty_positive_one_does_not():
    empty = torch.tensor([5, 6, 6])
    found, pooled = TextEncoder(Tower(), penultimate=False, pooled=True, empty=empty, zeros=True, prompts=Prompts())(IDS)
    assert not found[0, 0].any()
    assert not pooled[0, 0].any()
    for place in ((0, 1), (1, 0), (1, 1)):
        torch.testing.assert_close(found[place], IDS[place][:, None] * torch.tensor([1.0, 10.0]))

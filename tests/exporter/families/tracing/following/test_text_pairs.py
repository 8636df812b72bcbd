"""Texts padded to the longest of them while lengths are open: what a pipeline's own code makes of them and of their mask."""

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from exporter.families.tracing.following.open_texts import OpenTexts, uniform
from exporter.families.tracing.following.text_pairs import RowLengths, paired, stacked


class Encoding(torch.nn.Module):
    """What DreamLite's encoder of prompts does, over states that are the ids themselves."""

    def forward(self, negative, prompt):
        ids, mask, lengths = paired([negative, prompt], 7)
        with OpenTexts():
            mask = uniform(mask, lengths)
            states = ids[..., None].float() * mask[..., None]
            chosen = mask.bool()
            rows = [each[1:] for each in torch.split(states[chosen], chosen.sum(dim=1).tolist(), dim=0)]
            made = pad_sequence(rows, batch_first=True, padding_value=0)
            whole = torch.zeros(made.shape[:2], dtype=torch.long)
            for number, row in enumerate(rows):
                whole[number, : row.shape[0]] = 1
        return ids, made, whole


@pytest.fixture(scope="module")
def exported():
    dims = [{1: torch.export.Dim(name, min=3, max=20)} for name in ("negative", "prompt")]
    given = torch.arange(4)[None], torch.arange(6)[None]
    return torch.export.export(Encoding(), given, dynamic_shapes=tuple(dims)).module()


@pytest.mark.parametrize("lengths", [(4, 6), (9, 3), (5, 5)])
def test_one_graph_holds_for_a_negative_prompt_that_is_longer_and_one_that_is_shorter(exported, lengths):
    texts = [torch.arange(1, length + 1)[None] for length in lengths]
    ids, made, whole = exported(*texts)
    longest = max(lengths)
    padded = [torch.nn.functional.pad(text, (0, longest - text.shape[1]), value=7) for text in texts]
    assert torch.equal(ids, torch.cat(padded))
    wanted = pad_sequence([text[0, 1:, None].float() for text in texts], batch_first=True)
    assert torch.equal(made, wanted)
    assert whole.sum(1).tolist() == [length - 1 for length in lengths]


def test_what_is_known_of_a_mask_is_not_said_of_what_was_computed_of_it():
    mask = uniform(torch.tensor([[1, 1, 0], [1, 1, 1]]), RowLengths((2, 3)))
    with OpenTexts():
        assert mask.sum(dim=-1).tolist() == [2, 3]
        assert (mask * 2).sum().item() == 10
        assert torch.arange(6).reshape(2, 3)[mask.bool()].tolist() == [0, 1, 3, 4, 5]
        assert (1 - mask).tolist() == [[0, 0, 1], [0, 0, 0]]


def test_sequences_are_stacked_as_torch_stacks_them():
    rows = [torch.rand(2, 3), torch.rand(4, 3)]
    assert torch.equal(stacked(rows, 0.5), pad_sequence(rows, batch_first=True, padding_value=0.5))

"""What tokenizers give beside ids and mask."""

import pytest
import torch

from exporter.families.tracing.texts import made_of_masks

MASK = torch.tensor([[0, 0, 1, 1, 1], [0, 1, 1, 1, 1]])


@pytest.mark.parametrize(
    ("name", "own"),
    [("position_ids", [[0, 0, 0, 1, 2], [0, 0, 1, 2, 3]]), ("token_type_ids", [[0] * 5] * 2)],
)
def test_what_the_mask_says_is_made_of_it(name, own):
    given = {"input_ids": MASK, "attention_mask": MASK, name: torch.tensor(own)}
    assert made_of_masks.names(given) == (name,)
    again = made_of_masks.beside({"input_ids": MASK, "attention_mask": MASK}, (name,))
    assert again[name].tolist() == own


def test_anything_else_is_not():
    given = {"attention_mask": MASK, "position_ids": torch.arange(5).expand(2, 5)}
    assert made_of_masks.names(given) == ()
    assert made_of_masks.names({"input_ids": MASK}) == ()

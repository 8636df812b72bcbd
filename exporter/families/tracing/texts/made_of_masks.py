"""What some tokenizers give beside ids and mask, and a graph makes of the mask: it takes no further input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

#: Name of what is given → what it is of a mask (texts, length).
_OF_MASK: Mapping[str, Callable[[Tensor], Tensor]] = {
    "position_ids": lambda mask: (mask.cumsum(1) - 1).clamp(min=0),
    "token_type_ids": torch.zeros_like,
}
#: All that may be.
MADE = tuple(_OF_MASK)


def names(given: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Those of what a tokenizer gave of texts that are what their mask says."""
    mask = given.get("attention_mask")
    if mask is None:
        return ()
    return tuple(name for name, made in _OF_MASK.items() if name in given and torch.equal(given[name], made(mask)))


def beside(given: Mapping[str, Tensor], more: Sequence[str]) -> dict[str, Tensor]:
    """Ids and mask with what else the tokenizer gave."""
    return {**given, **{name: _OF_MASK[name](given["attention_mask"]) for name in more}}

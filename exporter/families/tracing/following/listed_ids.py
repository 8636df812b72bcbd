"""Ids of a text as a Python list, as a tokenizer gives them that is asked for no tensors: how many they are may be open."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import SymInt, Tensor


class Ids(list[Any]):
    """A list of one thing, which stands for all ids of one text: it is copied, cut to what is longer, and joined with others.

    Attributes:
        row: the ids, or their mask, int64 (length,).

    """

    def __init__(self, row: Tensor) -> None:
        super().__init__([_All(row)])
        self.row = row


class _All:
    """What stands in a list for the ids of one text."""

    def __init__(self, row: Tensor) -> None:
        self.row = row


def asked_for(options: Mapping[str, Any]) -> bool:
    """Whether a tokenizer is asked for lists that are as long as their texts."""
    return options.get("return_tensors") is None and options.get("padding", False) in (False, None, "do_not_pad")


def length(values: Any) -> Any:  # noqa: ANN401 - anything that has a length
    """How many ids are in a list; `len` of anything else."""
    if not isinstance(values, list) or not any(isinstance(each, _All) for each in values):
        return len(values)
    return sum(each.row.shape[0] if isinstance(each, _All) else 1 for each in values)


def as_tensor(values: Any, **options: Any) -> Tensor | None:  # noqa: ANN401 - data of a tensor
    """The tensor of ids, or of lists of them as long as each other, or of lengths that are open; None of other data."""
    if not isinstance(values, list) or not values:
        return None
    if any(isinstance(each, _All) for each in values):
        rows = [each.row if isinstance(each, _All) else torch.tensor([each]) for each in values]
        return _typed(torch.cat(rows) if len(rows) > 1 else rows[0], options)
    if any(isinstance(each, SymInt) for each in values):
        return torch.stack([torch.full((), each, dtype=options.get("dtype") or torch.long) for each in values])
    rows = [as_tensor(each, **options) for each in values]
    return torch.stack([row for row in rows if row is not None]) if all(row is not None for row in rows) else None


def _typed(row: Tensor, options: Mapping[str, Any]) -> Tensor:
    return row.to(options["dtype"]) if options.get("dtype") else row


def lists(answer: Callable[..., Any], texts: Any, options: Mapping[str, Any]) -> Any:  # noqa: ANN401 - a text, or several
    """What a tokenizer gives that is asked for no tensors: of a text its ids, of several a list each.

    `answer` gives what is asked of one text as tensors.
    """
    alone = [texts] if isinstance(texts, str) else list(texts)
    each = [answer([text], {**options, "return_tensors": "pt"}) for text in alone]
    found = each[0]
    for name in list(found):
        rows = [Ids(dict.__getitem__(own, name)[0].long()) for own in each]
        dict.__setitem__(found, name, rows[0] if isinstance(texts, str) else rows)
    return found

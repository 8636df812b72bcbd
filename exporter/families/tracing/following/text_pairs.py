"""Texts that a tokenizer pads to the longest of them, each as long as it is, and their mask, of which that is known."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


class RowLengths(tuple[Any, ...]):
    """How long each row is of a mask of ones behind which there are zeros; lengths may be open. It is known of them alone too."""

    __slots__ = ()

    def told(self, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, bool]:
        """What a function of the mask, or of its sums, gives; and whether the same lengths are known of that."""
        name, tensor = getattr(func, "__name__", ""), args[0]
        if name == "tolist" and tensor.ndim == 1:
            return list(self), False
        typed = name in {"bool", "clone", "contiguous", "detach", "int", "long", "to"}
        summed = name == "sum" and tensor.ndim > 1 and kwargs.get("dim", args[1] if len(args) > 1 else None) in (-1, 1)
        return func(*args, **kwargs), typed or summed

    def selected(self, tensor: Tensor) -> Tensor:
        """What the mask selects of (rows, length, …), one row behind the other."""
        return torch.cat([tensor[row, :length] for row, length in enumerate(self)])


def paired(ids: Sequence[Tensor], pad: int) -> tuple[Tensor, Tensor, RowLengths]:
    """Texts' ids, (1, length) each, padded to the longest of them; their mask; and how long each is."""
    lengths = RowLengths(each.shape[1] for each in ids)
    longest = functools.reduce(torch.sym_max, lengths)
    filled = [functional.pad(each, (0, longest - each.shape[1]), value=pad) for each in ids]
    masks = [functional.pad(torch.ones_like(each), (0, longest - each.shape[1])) for each in ids]
    return torch.cat(filled), torch.cat(masks), lengths


def stacked(sequences: Sequence[Tensor], value: float = 0.0) -> Tensor:
    """Sequences (length, …) as one tensor, padded behind to the longest of them, as `pad_sequence` does with the batch first."""
    longest: Any = functools.reduce(torch.sym_max, (each.shape[0] for each in sequences))
    widths = ((*[0] * (2 * (each.ndim - 1)), 0, longest - each.shape[0]) for each in sequences)
    return torch.stack([functional.pad(each, width, value=value) for each, width in zip(sequences, widths, strict=True)])

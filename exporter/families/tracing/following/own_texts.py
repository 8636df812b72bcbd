"""Texts without what pads them, for a network that asks a mask how many ids are a text's own: the padding is not seen at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from engines.errors import UnsupportedError

#: Where a tensor keeps that it is made of a text's mask alone.
_KEPT = "_of_a_mask"
#: What tells Python the numbers of a tensor.
_TOLD = {"item", "tolist", "__int__", "__index__"}


@dataclass(frozen=True)
class Ones:
    """A mask (batch, `dim`) that selects all of a text: no port, since the text's length says all of it."""

    dim: str
    dtype: torch.dtype

    def made(self, batch: Any, length: Any) -> Tensor:  # noqa: ANN401 - lengths that may be open
        """It, for so many texts."""
        return torch.ones((batch, length), dtype=self.dtype)


@dataclass(frozen=True)
class Zeros:
    """What an encoder fills in where nothing of a text is for it, (batch, *`shape`): no port, since it is always the same."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    def made(self, batch: Any) -> Tensor:  # noqa: ANN401 - a length that may be open
        """It, for so many texts."""
        return torch.zeros((batch, *self.shape), dtype=self.dtype)

    @classmethod
    def of(cls, one: Any, other: Any) -> Zeros | None:  # noqa: ANN401 - whatever encoders return
        """That of one text and of another, a longer one or two; None where they are anything else."""
        both = [each for each in (one, other) if isinstance(each, Tensor) and not each.is_meta and not each.any()]
        return cls(tuple(one.shape[1:]), one.dtype) if len(both) == 2 and one.shape[1:] == other.shape[1:] else None


class AskedMasks(TorchFunctionMode):
    """Within it it is noted whether Python is told what a mask selects.

    Attributes:
        asked: whether it was.

    """

    asked = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:  # noqa: ANN401 - whatever torch's function returns
        found = func(*args, **(kwargs or {}))
        name, given = getattr(func, "__name__", ""), [each for each in pytree.tree_leaves(args) if isinstance(each, Tensor)]
        if name == "__getitem__":
            self.asked |= any(hasattr(each, _KEPT) for each in (*_bounds(args[1]), *_choosing(args[1])))
        if given and all(hasattr(each, _KEPT) for each in given):
            self.asked |= name in _TOLD
            found = list(found) if name == "__iter__" else found
            mark(pytree.tree_leaves(found))
        return iter(found) if name == "__iter__" else found


def _bounds(index: Any) -> list[Any]:  # noqa: ANN401 - whatever is written between brackets
    """Where slices begin and end."""
    slices = [each for each in (index if isinstance(index, tuple) else [index]) if isinstance(each, slice)]
    return [bound for each in slices for bound in (each.start, each.stop)]


def _choosing(index: Any) -> list[Any]:  # noqa: ANN401 - whatever is written between brackets
    """Masks that select."""
    return [index] if isinstance(index, Tensor) and index.dtype == torch.bool else []


def mark(values: Iterable[Any]) -> None:
    """Have those of what an encoder of prompts returned be known that are masks: whole numbers that are there."""
    for each in values:
        if isinstance(each, Tensor) and not each.is_meta and not each.is_floating_point():
            setattr(each, _KEPT, True)


def cut(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a tokenizer gave of texts, (texts, length) each, without the columns that pad all of them."""
    own = given["attention_mask"].bool().any(0)
    return {name: value[:, own] for name, value in given.items()}


def as_long(given: Mapping[str, Tensor], length: Any, tokenizer: Any) -> dict[str, Tensor]:  # noqa: ANN401 - an open length
    """What a tokenizer gives of texts asked for so many ids, of what it gives of all of them, (texts, most) each.

    Raises:
        UnsupportedError: it puts something behind a text, which a cut would take away.

    """
    mask = given["attention_mask"]
    if isinstance(length, int) and length == mask.shape[1]:
        return dict(given)
    text = "a a a a"
    ids, cut_off = tokenizer(text).input_ids, tokenizer(text, max_length=3, truncation=True).input_ids
    if ids[:3] != cut_off:
        raise UnsupportedError("a text is cut to the length of another by a tokenizer that ends texts, which is not built.")
    if tokenizer.padding_side != "left":
        return {name: value[:, :length] for name, value in given.items()}
    starts = (mask.shape[1] - mask.sum(1, keepdim=True)).clamp(max=mask.shape[1] - length)
    places = starts + torch.arange(length)[None]
    return {name: value.gather(1, places) for name, value in given.items()}


def without_padding(values: Sequence[Any], leaves: Sequence[Any]) -> list[Any]:
    """What an encoder returned of one padded text, (1, length, …) each: along every open length what the mask of it selects.

    `leaves` say of each value what it is: of those that are `Ones` it is the mask.
    """
    masks = {leaf.dim: value[0].bool() for value, leaf in zip(values, leaves, strict=True) if isinstance(leaf, Ones)}

    def own(value: Any, leaf: Any) -> Any:  # noqa: ANN401
        for axis, dim in (getattr(leaf, "open", {}) if masks else {}).items():
            value = value.movedim(axis + 1, 0)[masks[dim]].movedim(0, axis + 1)
        return value

    return [own(*pair) for pair in zip(values, leaves, strict=True)]

"""Ids of a text as a Python list, as a tokenizer gives them that is asked for no tensors: what a pipeline makes of such lists."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import SymInt, Tensor

from engines.errors import UnsupportedError

#: What answers a tokenizer's call, given texts and options, with tensors (texts, length).
Answer = Callable[[Sequence[str], Mapping[str, Any]], Mapping[str, Tensor]]


class Pieces(str):
    """A text of which a pipeline makes a list of ids, piece by piece.

    Attributes:
        pieces: that it is made of.

    """

    __slots__ = ("pieces",)
    pieces: tuple[str, ...]

    @classmethod
    def of(cls, pieces: Sequence[str]) -> Pieces:
        """The whole of them."""
        found = cls("".join(pieces))
        found.pieces = tuple(pieces)
        return found


@dataclass(frozen=True)
class _Row:
    """What stands in a list for all ids of one text, or for their mask: `key` of what the tokenizer is asked for."""

    text: str
    options: Mapping[str, Any]
    answer: Answer
    count: Callable[[str, Mapping[str, Any]], int]
    key: str


class Ids(list[Any]):
    """A list of one thing, which stands for all ids of one text: it is joined with others, and asked how long it is.

    Of a text of open length it tells Python how long the text is that is followed, to compare it with none or the most.
    """

    def __len__(self) -> int:
        """How many ids the text has."""
        return length(self)

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401 - a list's
        """Refuse: which ids these are is not known."""
        raise UnsupportedError("a pipeline takes single ids out of what its tokenizer gives, which is not built.")


class _Given(dict[str, Any]):
    """What a tokenizer gives, whose entries are attributes too."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - lists
        if name not in self:
            raise AttributeError(name)
        return self[name]


def asked_for(options: Mapping[str, Any]) -> bool:
    """Whether a tokenizer is asked for lists that are as long as their texts."""
    return options.get("return_tensors") is None and options.get("padding", False) in (False, None, "do_not_pad")


def lists(texts: Any, options: Mapping[str, Any], answer: Answer, count: Callable[[str, Mapping[str, Any]], int]) -> Any:  # noqa: ANN401 - a text, or several
    """What a tokenizer gives that is asked for no tensors: of a text its ids, of several a list each.

    It is tokenized by `answer` when a tensor is made of them; until then, `count` says how many ids a text has.
    """
    found = _Given()
    for key in ("input_ids", "attention_mask"):
        rows = [Ids([_Row(text, options, answer, count, key)]) for text in ([texts] if isinstance(texts, str) else texts)]
        found[key] = rows[0] if isinstance(texts, str) else rows
    return found


def length(values: Any) -> Any:  # noqa: ANN401 - anything that has a length
    """How many ids are in a list; `len` of anything else."""
    if not isinstance(values, list):
        return len(values)
    return sum(each.count(each.text, each.options) if isinstance(each, _Row) else 1 for each in list.__iter__(values))


def as_tensor(values: Any, **options: Any) -> Tensor | None:  # noqa: ANN401 - data of a tensor
    """The tensor of a list of ids, or of such lists, or of lengths that are open; None of other data."""
    each = list(list.__iter__(values)) if type(values) in (list, Ids) else []
    if not each:
        return None
    if any(isinstance(one, _Row) for one in each):
        (text, first) = _whole(each)
        row = first.answer([text], {**first.options, "return_tensors": "pt"})[first.key][0]
        return row.to(options["dtype"]) if options.get("dtype") else row
    if any(isinstance(one, SymInt) for one in each) and all(isinstance(one, int | SymInt) for one in each):
        return torch.stack([torch.full((), one, dtype=options.get("dtype") or torch.long) for one in each])
    rows = [as_tensor(one, **options) for one in each]
    known = [row for row in rows if row is not None]
    return torch.stack(known) if len(known) == len(rows) else None


def padded(encoded: Any, options: Mapping[str, Any]) -> Any:  # noqa: ANN401 - as of a tokenizer's `pad`
    """What a tokenizer's `pad` gives of lists of ids; None where they are others.

    A length to which they are padded is one to which the pipeline has cut them before.
    """
    rows = encoded["input_ids"]
    each = [list(list.__iter__(row)) for row in rows if isinstance(row, list)]
    if not each or len(each) != len(rows) or not all(any(isinstance(one, _Row) for one in row) for row in each):
        return None
    texts, firsts = zip(*map(_whole, each), strict=True)
    cut = {"truncation": True} if options.get("padding") == "max_length" else {}
    return firsts[0].answer(list(texts), {**firsts[0].options, **options, **cut})


def _whole(row: Sequence[Any]) -> tuple[str, _Row]:
    """The text whose ids are all in a list, and the first piece of it."""
    if not all(isinstance(each, _Row) for each in row):
        raise UnsupportedError("a pipeline puts ids of its own around a text's, which is not built.")
    return Pieces.of([each.text for each in row]), row[0]

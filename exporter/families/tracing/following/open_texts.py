"""Texts that are as long as they are: what a pipeline's code asks of their masks, and cuts off them, while a length is open."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import SymInt, Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from exporter.families.tracing.following import listed_ids
from exporter.families.tracing.following.constants import is_traced
from exporter.families.tracing.following.text_pairs import RowLengths, stacked

#: Where a tensor keeps the number that all of it is, and that it is whether all of a mask selects.
_KEPT, _WHOLE = "_uniform", "_whether_all"
_MADE = ("ones", "ones_like", "new_ones")
#: What changes a tensor's type alone.
_TYPED = {"bool", "clone", "contiguous", "detach", "int", "long", "to"}
#: What changes a tensor's shape or type and none of its numbers.
_SHAPED = {
    "__getitem__", "bool", "chunk", "clone", "contiguous", "detach", "expand", "flatten", "int", "long", "narrow", "permute",
    "repeat", "repeat_interleave", "reshape", "split", "squeeze", "to", "transpose", "type_as", "unbind", "unflatten",
    "unsqueeze", "view",
}  # fmt: skip
_JOINED = {"cat", "concat", "stack"}


def uniform(tensor: Tensor, value: Any = 1) -> Tensor:  # noqa: ANN401 - a number, which may be an open length
    """The same tensor, of which all is known to be that number."""
    setattr(tensor, _KEPT, value)
    return tensor


class Ends(NamedTuple):
    """What is known of a tensor that is one number but for the last `length` places of its last axis."""

    first: Any
    last: Any
    length: int

    def compared(self, other: Any) -> Ends:  # noqa: ANN401 - a number
        """Where it is that number."""
        return Ends(self.first == other, self.last == other, self.length)


def padded(ids: Tensor, tokenizer: Any, count: int) -> tuple[Tensor, Tensor]:  # noqa: ANN401 - transformers'
    """A text's ids (rows, length) with so many that pad it behind them, and the mask of which that is known."""
    whole = uniform(torch.ones_like(ids))
    if not count:
        return ids, whole
    more = ids.new_full((ids.shape[0], count), tokenizer.pad_token_id)
    return torch.cat([ids, more], 1), uniform(torch.cat([whole, torch.zeros_like(more)], 1), Ends(1, 0, count))


def known(tensor: object) -> Any:  # noqa: ANN401 - as above, or None
    """The number that all of a tensor is known to be."""
    return getattr(tensor, _KEPT, None) if isinstance(tensor, Tensor) else None


class OpenTexts(TorchFunctionMode):
    """Within it what is made of ones is known to be ones: all of a text is selected by them, and sums are lengths.

    Of a mask that is a graph's own not all selects, which is right where all does: it is applied.

    What is never longer is not cut to at most so many, of which torch would ask whether it is shorter.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever torch's function returns
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        if (made := _made(name, func, args, kwargs)) is not None:
            return made
        own = known(args[0]) if args else None
        if isinstance(own, Ends | RowLengths):
            return _of_mask(own, name, func, args, kwargs)
        if (answer := _asked(name, args) if own is None else _answer(name, own, args, kwargs)) is not None:
            return answer
        if name == "__setitem__" and (places := _ends(args[1])):
            args[0][places] = args[2].reshape(args[0][places].shape)
            return None
        if name == "__getitem__":
            if (whole := _selected(*args)) is not None:
                return whole
            args = args[0], _cut(*args)
        return _handed_on(func(*args, **kwargs), own, name, args)


def _made(name: str, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """A tensor that a function makes of one number, or of sequences of open lengths; None of others."""
    if name in _MADE:
        return uniform(func(*args, **kwargs))
    if name == "pad_sequence" and any(isinstance(length, SymInt) for each in args[0] for length in each.shape):
        return _stacked(*args, **kwargs)
    if name == "tensor" and args and (made := listed_ids.as_tensor(*args, **kwargs)) is not None:
        lengths = any(isinstance(each, SymInt) for each in args[0])
        return uniform(made, RowLengths(args[0])) if lengths else made
    filled = kwargs.get("fill_value", args[-1] if args else None) if name == "full" else None
    own = isinstance(filled, int | SymInt) and not isinstance(filled, bool)
    return uniform(func(*args, **kwargs), filled) if own else None


def _handed_on(found: Any, own: Any, name: str, args: Sequence[Any]) -> Any:  # noqa: ANN401
    """What a function gave, of which is known what was known of the tensor that it was given."""
    if name == "__iter__" and own is not None:
        return iter([uniform(row, own) for row in found])
    if name in _JOINED:
        values = [known(each) for each in args[0][:] if not _is_empty(each)]  # a slice of an open list is what it repeats
        own = values[0] if values and all(each is values[0] for each in values) else None
    if own is not None and name in _SHAPED | _JOINED:
        kept = bool(own) if name == "bool" else own
        pytree.tree_map_only(Tensor, lambda each: uniform(each, kept), found)
    elif own is None and name == "all" and isinstance(found, Tensor) and found.ndim == 0:
        setattr(found, _WHOLE, True)
    elif own is not None and (name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))):
        delattr(args[0], _KEPT)
    return found


def _of_ends(own: Ends, name: str, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """What a function gives of a mask of which it is known where it ends: what it selects is as long as is known."""
    found = func(args[0], _cut(*args)) if name == "__getitem__" else func(*args, **kwargs)
    if name in ("eq", "__eq__"):
        return uniform(found, own.compared(args[1]))
    if name in _TYPED:
        return uniform(found, own)
    if name == "sum" and kwargs.get("dim", args[1] if len(args) > 1 else None) in (-1, args[0].ndim - 1):
        length = args[0].shape[-1]
        return uniform(torch.full_like(found, value := own.first * (length - own.length) + own.last * own.length), value)
    return found


def _of_mask(own: Any, name: str, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """What a function gives of a mask of which something is known, and not that it is one number."""
    if isinstance(own, RowLengths):
        return _of_rows(own, func, args, kwargs)
    return _of_ends(own, name, func, args, kwargs)


def _is_empty(value: object) -> bool:
    """Whether there is nothing in a tensor, however long its open lengths are."""
    return isinstance(value, Tensor) and any(isinstance(length, int) and not length for length in value.shape)


def _asked(name: str, args: Sequence[Any]) -> bool | None:
    """Whether all of a mask selects that is a graph's own: no, so that it is applied; None where something else is asked."""
    return False if name == "__bool__" and hasattr(args[0], _WHOLE) and is_traced(args[0]) else None


def _answer(name: str, own: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """What a tensor of one number says without being looked at; None where it is asked for something else."""
    tensor: Tensor = args[0]
    axis = kwargs.get("dim", args[1] if len(args) > 1 else None)
    if name in ("all", "any", "max", "min") and axis is None:
        value = bool(own) if name in ("all", "any") else own
        return uniform(torch.full((), value, dtype=torch.bool if name in ("all", "any") else tensor.dtype), value)
    if name == "sum" and (axis is None or isinstance(axis, int)):
        value = own * (math.prod(tensor.shape) if axis is None else tensor.shape[axis])
        shape = () if axis is None else [length for number, length in enumerate(tensor.shape) if number != axis % tensor.ndim]
        return uniform(torch.full(tuple(shape), value, dtype=torch.long), value)
    if name in ("add", "__add__") and tensor.ndim == 0 and isinstance(args[1], int):
        return uniform(torch.full((), own + args[1], dtype=tensor.dtype), own + args[1])
    if (told := _compared(name, own, args)) is not None:
        return uniform(torch.full_like(tensor, told, dtype=torch.bool), told)
    if name in ("item", "__bool__", "__int__", "__index__"):
        return bool(own) if name == "__bool__" else own
    listed = name == "tolist" and tensor.ndim == 1 and isinstance(tensor.shape[0], int)
    return [own] * tensor.shape[0] if listed else None


def _compared(name: str, own: Any, args: Sequence[Any]) -> bool | None:  # noqa: ANN401
    """Whether a tensor of one number is what it is compared with, everywhere; or what is not so. None of no comparison."""
    if name in ("eq", "__eq__", "ne", "__ne__") and isinstance(args[1], int | float):
        return (own == args[1]) == (name.strip("_") == "eq")
    return not own if name in ("bitwise_not", "logical_not", "__invert__") and args[0].dtype == torch.bool else None


def _ends(index: Any) -> tuple[slice, slice] | None:  # noqa: ANN401 - whatever is written between brackets
    """What selects the same as a mask (texts, length) of which it is known where it ends."""
    ends = known(index)
    if not isinstance(ends, Ends) or index.dtype != torch.bool or index.ndim != 2:
        return None
    return slice(None), slice(-ends.length, None) if ends.last else slice(None, -ends.length)


def _selected(tensor: Tensor, index: Any) -> Tensor | None:  # noqa: ANN401 - whatever is written between brackets
    """All of what a mask of ones selects; None where it is no such mask that selects."""
    if places := _ends(index):
        return tensor[places].flatten(0, 1)
    if isinstance(rows := known(index), RowLengths) and index.dtype == torch.bool and index.ndim > 1:
        return rows.selected(tensor)
    if not isinstance(index, Tensor) or index.dtype != torch.bool or not isinstance(known(index), bool):
        return None
    every = tensor if index.ndim == 1 else tensor.flatten(0, index.ndim - 1)
    return every if known(index) else every[:0]


def _of_rows(own: RowLengths, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """What a function gives of a mask of which it is known how long each row is, or of these lengths."""
    if getattr(func, "__name__", "") == "max" and args[0].ndim == 1 and len(args) == 1 and not kwargs:
        longest = functools.reduce(torch.sym_max, own)
        return uniform(torch.full((), longest, dtype=args[0].dtype), longest)
    found, same = own.told(func, args, kwargs)
    return uniform(found, own) if same else found


def _stacked(sequences: Sequence[Tensor], batch_first: bool = False, padding_value: float = 0.0, *_: str) -> Tensor:  # noqa: FBT001, FBT002 - torch's
    made = stacked(sequences, padding_value)
    return made if batch_first else made.transpose(0, 1)


def _is_some(stop: Any) -> bool:  # noqa: ANN401
    return isinstance(stop, int | SymInt) and statically_known_true(stop > 0)


def _told(index: Any) -> Any:  # noqa: ANN401
    """A slice with what is known of a tensor in its place; everything else as it is."""
    if not isinstance(index, slice) or known(index.stop) is None:
        return index
    return slice(index.start, known(index.stop), index.step)


def _cut(tensor: Tensor, index: Any) -> Any:  # noqa: ANN401
    """What is written between brackets, without cuts of an open length that is never longer."""
    each = [_told(own) for own in (index if isinstance(index, tuple) else [index])]
    for axis, own in enumerate(each):
        if not isinstance(own, slice):
            break
        begins = own.start in (None, 0) and own.step is None and _is_some(own.stop)
        length = tensor.shape[axis] if begins else 0
        if isinstance(length, SymInt) and statically_known_true(length <= own.stop):
            each[axis] = slice(None)
    return tuple(each) if isinstance(index, tuple) else each[0]

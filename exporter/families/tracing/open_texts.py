"""Texts that are as long as they are: what a pipeline's code asks of their masks, and cuts off them, while a length is open."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import SymInt, Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

#: Where a tensor keeps the number that all of it is.
_KEPT = "_uniform"
_MADE = ("ones", "ones_like", "new_ones")
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


def known(tensor: object) -> Any:  # noqa: ANN401 - as above, or None
    """The number that all of a tensor is known to be."""
    return getattr(tensor, _KEPT, None) if isinstance(tensor, Tensor) else None


class OpenTexts(TorchFunctionMode):
    """Within it what is made of ones is known to be ones: all of a text is selected by them, and sums are lengths.

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
        if name in _MADE:
            return uniform(func(*args, **kwargs))
        if name == "full" and isinstance(own := kwargs.get("fill_value", args[-1]), int | SymInt) and not isinstance(own, bool):
            return uniform(func(*args, **kwargs), own)
        own = known(args[0]) if args else None
        if own is not None and (answer := _answer(name, own, args, kwargs)) is not None:
            return answer
        if name == "__getitem__":
            if (whole := _selected(*args)) is not None:
                return whole
            args = args[0], _cut(*args)
        found = func(*args, **kwargs)
        if name in _JOINED:
            values = [known(each) for each in args[0] if not _is_empty(each)]
            own = values[0] if values and all(each is values[0] for each in values) else None
        if own is not None and name in _SHAPED | _JOINED:
            kept = bool(own) if name == "bool" else own
            pytree.tree_map_only(Tensor, lambda each: uniform(each, kept), found)
        elif own is not None and (name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))):
            delattr(args[0], _KEPT)
        return found


def _is_empty(value: object) -> bool:
    """Whether there is nothing in a tensor, however long its open lengths are."""
    return isinstance(value, Tensor) and any(isinstance(length, int) and not length for length in value.shape)


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
    if name in ("item", "__bool__", "__int__", "__index__"):
        return bool(own) if name == "__bool__" else own
    if name == "tolist" and tensor.ndim == 1 and isinstance(tensor.shape[0], int):
        return [own] * tensor.shape[0]
    return None


def _selected(tensor: Tensor, index: Any) -> Tensor | None:  # noqa: ANN401 - whatever is written between brackets
    """All of what a mask of ones selects; None where it is no such mask that selects."""
    if not isinstance(index, Tensor) or index.dtype != torch.bool or known(index) is not True:
        return None
    return tensor if index.ndim == 1 else tensor.flatten(0, index.ndim - 1)


def _cut(tensor: Tensor, index: Any) -> Any:  # noqa: ANN401
    """What is written between brackets, without cuts of an open length that is never longer."""
    each = list(index) if isinstance(index, tuple) else [index]
    for axis, own in enumerate(each):
        if not isinstance(own, slice):
            break
        begins = own.start in (None, 0) and own.step is None and isinstance(own.stop, int) and own.stop > 0
        length = tensor.shape[axis] if begins else 0
        if isinstance(length, SymInt) and statically_known_true(length <= own.stop):
            each[axis] = slice(None)
    return tuple(each) if isinstance(index, tuple) else each[0]

"""Positions of an open number, such as (row, column) of each cell: the largest is known of how they are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import SymInt, Tensor
from torch.overrides import TorchFunctionMode

from exporter.families.tracing.following.open_texts import known, uniform

#: Where a tensor keeps the largest number of each of its last axis's columns, or of all of it.
_COLUMNS, _LARGEST = "_largest_columns", "_largest"
#: What makes other shapes of positions, and leaves columns as they are.
_SHAPED = {"clone", "contiguous", "expand", "long", "repeat", "stack", "to", "type_as", "unbind", "unsqueeze"}
_SIZED = {"view", "reshape", "zeros", "new_zeros", "expand"}
_COMPUTED: Mapping[str, Callable[[Any, Any], Any]] = {
    "add": lambda one, other: one + other,
    "mul": lambda one, other: one * other,
}


class OpenPositions(TorchFunctionMode):
    """Within it the largest of positions is a length, and so is what is computed of it; else torch would read it off a tensor."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever torch's function returns
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "").strip("_")
        first = args[0] if args else None
        largest = getattr(first, _LARGEST, None)
        if name == "max" and len(args) == 1 and not kwargs and largest is not None:
            return _number(largest)
        if name in _COMPUTED and len(args) == 2 and any(_is_length(each) for each in args):
            values = [_value(each) for each in args]
            if None not in values:
                return _number(_COMPUTED[name](*values))
        if name in _SIZED:
            args = tuple(_sizes(each) for each in args)
        found = _product(args) if name == "cartesian_prod" else func(*args, **kwargs)
        if name == "arange" and len(args) == 1:
            setattr(found, _LARGEST, args[0] - 1)
        elif name == "cartesian_prod" and all(hasattr(each, _LARGEST) for each in args):
            setattr(found, _COLUMNS, [getattr(each, _LARGEST) for each in args])
        elif name == "getitem" and hasattr(first, _COLUMNS) and (column := _column(args[1])) is not None:
            setattr(found, _LARGEST, getattr(first, _COLUMNS)[column])
        elif name in _SHAPED:
            of = first[0] if isinstance(first, list | tuple) and first else first
            _keep(of, found)
        return found


def _product(columns: Sequence[Tensor]) -> Tensor:
    """Every row of one number of each column (length,), as torch makes them, by operators that ONNX has."""
    shape, grids = [column.shape[0] for column in columns], list[Tensor]()
    for axis, column in enumerate(columns):
        sides = [length if axis == own else 1 for own, length in enumerate(shape)]
        grids.append(column.reshape(sides).expand(shape))
    return torch.stack(grids, -1).reshape(-1, len(shape))


def _number(value: Any) -> Tensor:  # noqa: ANN401 - a length
    return uniform(torch.full((), value, dtype=torch.long), value)


def _is_length(value: object) -> bool:
    """Whether it is one number that is known to be a length."""
    return isinstance(value, Tensor) and not value.ndim and isinstance(known(value), int | SymInt)


def _value(value: Any) -> Any:  # noqa: ANN401 - of an operation
    """The number that it is known to be; None where it is not."""
    if isinstance(value, int | SymInt):
        return value
    return known(value) if isinstance(value, Tensor) and not value.ndim else None


def _sizes(value: Any) -> Any:  # noqa: ANN401
    """Lengths for tensors that are known to be such, in an argument of a function that takes sizes."""
    if isinstance(value, tuple | list):
        return type(value)(_sizes(each) for each in value)
    return known(value) if _is_length(value) else value


def _column(index: Any) -> int | None:  # noqa: ANN401 - whatever is written between brackets
    """Of `[:, 1]` and the like the last, with which one column is taken."""
    each = index if isinstance(index, tuple) else (index,)
    return each[-1] if len(each) > 1 and isinstance(each[-1], int) and all(own == slice(None) for own in each[:-1]) else None


def _keep(positions: Any, found: Any) -> None:  # noqa: ANN401 - a tensor, and what was made of it
    for name in (_COLUMNS, _LARGEST):
        for each in found if isinstance(found, tuple | list) else [found]:
            if hasattr(positions, name):
                setattr(each, name, getattr(positions, name))

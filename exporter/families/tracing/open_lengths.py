"""Lengths that stay open while a pipeline's own code is followed, where Python or torch would ask for their value."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import torch
from torch import SymFloat, SymInt, Tensor, nn

#: Whose code is followed with lengths that are open.
_OPENED = ("diffusers.pipelines", "diffusers.models")


class Repeated(list[Any]):
    """A Python list of an open number of times the same, of which a tensor can be made where that is a number.

    It is a list of that one thing to whoever asks for the first or how many there are to compare, and cannot be gone through.
    """

    def __init__(self, value: Any, count: Any) -> None:  # noqa: ANN401 - anything, and an open length
        super().__init__([value])
        self.value, self.times = value, count

    def __iter__(self) -> Iterator[Any]:
        raise TypeError("a list of an open length is gone through, one for each picture")


class Area(int):
    """What a pipeline takes for the area of a picture, and makes sides of by their ratio: those that were asked for, if open.

    sqrt(area · ratio) is the width and sqrt(area / ratio) the height.
    """

    def __new__(cls, height: Any, width: Any) -> Self:  # noqa: ANN401 - lengths that may be open
        """As a number it is 0: what is asked for are its sides."""
        found = super().__new__(cls, 0)
        found.height, found.width = height, width
        return found

    height: Any
    width: Any

    def __mul__(self, _ratio: object) -> Any:  # noqa: ANN401
        return _Square(self.width)

    def __truediv__(self, _ratio: object) -> Any:  # noqa: ANN401
        return _Square(self.height)


class _Square(NamedTuple):
    side: Any

    def __pow__(self, _half: float) -> Any:  # noqa: ANN401
        return self.side


class _Whole(type):
    """Of `int` in a pipeline's code: a length that is open stays so."""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, int | SymInt)

    def __call__(cls, *args: Any) -> Any:  # noqa: ANN401 - of `int`
        return args[0] if args and isinstance(args[0], SymInt) else int(*args)


class _OpenInt(int, metaclass=_Whole):
    pass


class _Real(type):
    """Of `float` in a pipeline's code: what is computed of a length that is open stays so."""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, float | SymFloat)

    def __call__(cls, *args: Any) -> Any:  # noqa: ANN401 - of `float`
        return torch.sym_float(args[0]) if args and isinstance(args[0], SymInt | SymFloat) else float(*args)


class _OpenFloat(float, metaclass=_Real):
    pass


@contextmanager
def open_lengths(pipeline: Any) -> Iterator[None]:  # noqa: ANN401 - a pipeline of diffusers
    """Within it `int(height)` and `float(height)` keep a height that is open, and `[0] * batch` a batch.

    In the code of the pipeline and of diffusers' networks in it.
    """
    networks = (each for each in pipeline.components.values() if isinstance(each, nn.Module))
    inside = {type(module) for network in networks for module in network.modules()}
    names = {kind.__module__ for each in (type(pipeline), *inside) for kind in each.__mro__}
    modules = [sys.modules[name] for name in names if name.startswith(_OPENED)]
    multiply: Any = SymInt.__rmul__

    def repeated(self: SymInt, other: Any) -> Any:  # noqa: ANN401 - what stands before the `*`
        if isinstance(other, list) and (count := self.node.maybe_as_int()) is not None:
            return other * count
        return Repeated(other[0], self) if isinstance(other, list) and len(other) == 1 else multiply(self, other)

    for module in modules:
        vars(module).update(int=_OpenInt, float=_OpenFloat)
    SymInt.__rmul__ = repeated
    try:
        yield
    finally:
        SymInt.__rmul__ = multiply
        for module in modules:
            for name in ("int", "float"):
                vars(module).pop(name, None)


def one_batch(values: Iterable[Tensor]) -> None:
    """Tell whoever traces that values have as many rows as each other, of which a pipeline may ask before it joins them."""
    first, *rest = (value.shape[0] for value in values)
    for count in rest:
        torch._check(first == count)  # noqa: SLF001 - as torch documents it


def linspace(start: Any, end: Any, steps: Any, **options: Any) -> Tensor:  # noqa: ANN401 - numbers that may be open
    """Numbers of even steps, as torch makes them, but for their last digit; torch's own asks how many."""
    kept = {name: value for name, value in options.items() if name in ("dtype", "device")}
    return start + torch.arange(steps, **{"dtype": torch.get_default_dtype(), **kept}) * ((end - start) / (steps - 1))


def fill_diagonal(matrix: Tensor, value: float) -> Tensor:
    """Fill the diagonal in place, as torch does, whatever the sizes; torch's own asks for them."""
    rows, columns = (torch.arange(length, device=matrix.device) for length in matrix.shape)
    return matrix.masked_fill_(rows[:, None] == columns, value)

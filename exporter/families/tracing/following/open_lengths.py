"""Lengths that stay open while a pipeline's own code is followed, where Python or torch would ask for their value."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import torch
from torch import SymBool, SymFloat, SymInt, Tensor, nn
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.nn import functional

from engines.errors import UnsupportedError
from exporter.families.tracing.following import listed_ids
from exporter.families.tracing.following.open_scale import OpenScale

#: Whose code is followed with lengths that are open.
_OPENED = ("diffusers.pipelines", "diffusers.models")


#: Methods that keep what they returned.
_CACHED = type(functools.lru_cache(lambda: None))


class Repeated(list[Any]):
    """A Python list of an open number of times the same, of which a tensor can be made where that is a number.

    It is a list of that one thing to whoever asks for the first or how many there are to compare, and cannot be gone through.
    """

    def __init__(self, value: Any, count: Any) -> None:  # noqa: ANN401 - anything, and an open length
        super().__init__([value])
        self.value, self.times = value, count

    def __iter__(self) -> Iterator[Any]:
        raise UnsupportedError(
            "its code goes through a list that has one entry for each picture, of which a graph has any number.\n"
            "  Write shapes: {batch: [1, 1, 1]}, and pictures are drawn one by one."
        )


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
    """Of `float` in a pipeline's code: what is computed of a length that is open stays so, and so does an open scale."""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, float | SymFloat)

    def __call__(cls, *args: Any) -> Any:  # noqa: ANN401 - of `float`
        if args and isinstance(args[0], OpenScale):
            return args[0]
        return torch.sym_float(args[0]) if args and isinstance(args[0], SymInt | SymFloat) else float(*args)


class _OpenFloat(float, metaclass=_Real):
    pass


def _length(value: Any) -> Any:  # noqa: ANN401 - of `len`
    """`len` of a tensor may be open."""
    return value.shape[0] if isinstance(value, Tensor) and value.ndim else listed_ids.length(value)


def largest(*values: Any, **options: Any) -> Any:  # noqa: ANN401 - of `max`
    """`max` of open lengths is open, and of what is computed of them: which of them it is differs."""
    each = list(values[0] if len(values) == 1 else values)
    return functools.reduce(torch.sym_max, each) if any(map(_is_open, each)) else max(each, **options)


def smallest(*values: Any, **options: Any) -> Any:  # noqa: ANN401 - of `min`
    """`min` of them too; of one that is never longer than another it is that one."""

    def smaller(one: Any, other: Any) -> Any:  # noqa: ANN401
        if reaches(one, other):
            return other
        return one if reaches(other, one) else torch.sym_min(one, other)

    each = list(values[0] if len(values) == 1 else values)
    return functools.reduce(smaller, each) if any(map(_is_open, each)) else min(each, **options)


def reaches(one: Any, other: Any) -> bool:  # noqa: ANN401 - lengths
    """Whether one length is never less than another, as the larger of several is not."""
    several = one.node.expr.args if _is_open(one) and type(one.node.expr).__name__ == "Max" else ()
    return (_is_open(other) and other.node.expr in several) or statically_known_true(one >= other)


def _is_open(value: object) -> bool:
    return isinstance(value, SymInt | SymFloat)


def _surely(values: Iterable[Any]) -> bool:
    """`all` of comparisons of lengths: only what always holds, so that the way is the one that is right in either case."""
    return all(statically_known_true(each) if isinstance(each, SymBool) else each for each in values)


def _distinct(values: Iterable[Any] = ()) -> Any:  # noqa: ANN401 - of `set`
    """`set`; of open lengths, which have no hash, a list of those that are not surely the same."""
    each, found = list(values), list[Any]()
    if not any(isinstance(one, SymInt) for one in each):
        return set(each)
    for one in each:
        if not any(statically_known_true(one == other) for other in found):
            found.append(one)
    return found


#: What stands in the place of Python's own in the code that is followed.
_OPEN: Mapping[str, Any] = {
    "int": _OpenInt, "float": _OpenFloat, "len": _length, "max": largest, "min": smallest, "all": _surely, "set": _distinct,
}  # fmt: skip


class _Missing:
    """How much is missing to a multiple, (-length) % 32: a number of the graph, the same wherever the same is asked.

    torch would ask whether it is 0 or 1 wherever a tensor is that long. Whether there is any is answered with yes: nothing is
    added, where nothing is missing, by what adds it.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[Any, int], SymInt] = {}
        self._whole: set[tuple[Any, int]] = set()

    def of(self, negative: SymInt, left: Any, multiple: int) -> SymInt:  # noqa: ANN401 - an open length
        """The number that is `left` of a negative length."""
        where = left.node.expr, multiple
        if where not in self._known:
            with torch._C.DisableTorchFunction():  # noqa: SLF001 - what is known of a tensor shall not answer: this is a number anew
                found: Any = torch.full((), left, dtype=torch.long).item()
            torch._check(found >= 0)  # noqa: SLF001 - as torch documents it
            torch._check(found < multiple)  # noqa: SLF001
            self._known[where] = found
            self._whole.add(((found - negative).node.expr, multiple))
        return self._known[where]

    def fills(self, length: SymInt, multiple: int) -> bool:
        """Whether a length is one that was filled up to the multiple."""
        return (length.node.expr, multiple) in self._whole

    def __contains__(self, value: SymInt) -> bool:
        return any(value.node.expr == known.node.expr for known in self._known.values())


@contextmanager
def _nothing_kept(kinds: Iterable[type]) -> Iterator[None]:
    """Within it methods of classes compute what they else keep."""
    kept = [(kind, name, own) for kind in kinds for name, own in vars(kind).items() if isinstance(own, _CACHED)]
    for kind, name, own in kept:
        setattr(kind, name, own.__wrapped__)
    try:
        yield
    finally:
        for kind, name, own in kept:
            setattr(kind, name, own)


@contextmanager
def open_lengths(pipeline: Any) -> Iterator[None]:  # noqa: ANN401 - a pipeline of diffusers
    """Within it `int(height)` and `float(height)` keep a height that is open, and `[0] * batch` a batch.

    So do `len`, `max`, `min` and `all` of lengths, and what pads to a multiple. In the code of the pipeline and of diffusers'
    networks in it. What these keep of a call, by its arguments, is made anew: open lengths are no keys, and what is kept is of
    one trace.
    """
    networks = (each for each in pipeline.components.values() if isinstance(each, nn.Module))
    inside = {type(module) for network in networks for module in network.modules()}
    names = {kind.__module__ for each in (type(pipeline), *inside) for kind in each.__mro__}
    modules = [sys.modules[name] for name in names if name.startswith(_OPENED)]
    multiply, above, modulo = SymInt.__rmul__, SymInt.__gt__, SymInt.__mod__
    missing = _Missing()

    def repeated(self: SymInt, other: Any) -> Any:  # noqa: ANN401 - what stands before the `*`
        if isinstance(other, list) and (count := self.node.maybe_as_int()) is not None:
            return other * count
        return Repeated(other[0], self) if isinstance(other, list) and len(other) == 1 else multiply(self, other)

    def remaining(self: SymInt, other: Any) -> Any:  # noqa: ANN401
        if isinstance(other, int) and missing.fills(self, other):
            return 0
        kind.__mod__ = modulo  # which whoever traces computes by
        left: Any = modulo(self, other)
        kind.__mod__ = remaining
        constant = not isinstance(left, SymInt) or left.node.expr.is_number
        padded = not constant and isinstance(other, int) and statically_known_true(self <= 0)
        return missing.of(self, left, other) if padded else left

    def some(self: SymInt, other: Any) -> Any:  # noqa: ANN401
        return True if isinstance(other, int) and other == 0 and self in missing else above(self, other)

    kind: Any = SymInt
    for module in modules:
        vars(module).update(_OPEN)
    kind.__rmul__, kind.__gt__, kind.__mod__ = repeated, some, remaining
    try:
        with _nothing_kept(inside):
            yield
    finally:
        kind.__rmul__, kind.__gt__, kind.__mod__ = multiply, above, modulo
        for module in modules:
            for name in _OPEN:
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


def joined(rows: Repeated, dim: int = 0) -> Tensor:
    """A tensor an open number of times, one behind the other, as torch joins a list; torch's own joins what the list holds."""
    value = rows.value
    counts: list[Any] = [1] * value.ndim
    counts[dim] = rows.times
    return value.repeat(*counts)


def pad_sequence(
    rows: Sequence[Any],
    batch_first: bool = False,  # noqa: FBT001, FBT002 - as torch has it
    padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:
    """Rows (length, …) as one tensor, the shorter ones filled up, as torch does; torch's own asks for lengths."""
    most, whole = largest([row.shape[0] for row in rows]), list[Tensor]()
    for row in rows:
        missing = most - row.shape[0]
        sides = (missing, 0) if padding_side == "left" else (0, missing)
        whole.append(row if len(rows) == 1 else functional.pad(row, (*[0, 0] * (row.ndim - 1), *sides), value=padding_value))
    return torch.stack(whole, 0 if batch_first else 1)


def fill_masked(target: Tensor, mask: Tensor, value: Any) -> None:  # noqa: ANN401 - a number or a tensor
    """Put one value in all places that a mask selects, as torch does; torch's own asks how many they are."""
    chosen = mask.reshape(*mask.shape, *[1] * (target.ndim - mask.ndim))
    target.copy_(torch.where(chosen, value, target))


def fill_diagonal(matrix: Tensor, value: float) -> Tensor:
    """Fill the diagonal in place, as torch does, whatever the sizes; torch's own asks for them."""
    rows, columns = (torch.arange(length, device=matrix.device) for length in matrix.shape)
    return matrix.masked_fill_(rows[:, None] == columns, value)


def of_each_step(scales: list[OpenScale], **_: object) -> list[OpenScale]:
    """A list with the scale of each step, of which a pipeline would have a tensor: it takes one of them at every step."""
    return scales


def of_any_length(name: str, func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Callable[..., Any]:
    """What does the same as a function of torch, and asks for no length; the function itself, where that asks for none."""
    if name == "linspace" and any(isinstance(each, SymInt | SymFloat) for each in (*args, *kwargs.values())):
        return linspace
    if name == "pad_sequence":
        return pad_sequence
    if name == "as_tensor" and _is_of_scales(args[0]):
        return of_each_step
    if name == "cat" and isinstance(args[0], Repeated):
        return joined
    if name == "fill_diagonal_" and args[0].ndim > 1:
        return fill_diagonal
    return fill_masked if name == "__setitem__" and _is_one_for_all(*args) else func


def _is_of_scales(value: Any) -> bool:  # noqa: ANN401 - what a tensor is made of
    return isinstance(value, list) and bool(value) and isinstance(value[0], OpenScale)


def _is_one_for_all(target: Tensor, index: Any, value: Any) -> bool:  # noqa: ANN401 - as of `__setitem__`
    """Whether what a mask selects all becomes the same."""
    if not isinstance(index, Tensor) or index.dtype != torch.bool:
        return False
    more = value.ndim - (target.ndim - index.ndim) if isinstance(value, Tensor) else 0
    return more < 1 or (more == 1 and isinstance(value.shape[0], int) and value.shape[0] == 1)

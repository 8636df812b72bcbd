"""A scale that is an input of the graph, and in a pipeline's own code a number: compared, computed with, handed on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from torch import Tensor


class OpenScale(float):
    """A guidance scale, one a picture, that the recipe has decided to be on or off: comparisons answer so.

    torch takes it where it takes a number, and `Answered` puts the tensor in its place.

    Attributes:
        compared: whether something was decided by it.
        threshold: the largest number that it was compared with: off, it is that.
        used: whether it was computed with.

    """

    compared = used = False
    threshold: float | None = None

    def __new__(cls, value: Tensor, *, on: bool) -> Self:
        """Its value as Python's number only says whether guidance is on: 2 or 1."""
        found = super().__new__(cls, 2.0 if on else 1.0)
        found.value, found.on = value, on
        return found

    value: Tensor
    on: bool

    def _above(self, other: object) -> bool:
        self.compared = True
        if isinstance(other, int | float):
            self.threshold = float(other) if self.threshold is None else max(self.threshold, float(other))
        return self.on

    def _below(self, other: object) -> bool:
        return not self._above(other)

    __gt__ = __ge__ = _above  # type: ignore[assignment]
    __lt__ = __le__ = _below  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return self._below(other) and self.threshold == other

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = float.__hash__

    def __float__(self) -> float:
        raise TypeError("the guidance scale is read as one number, and is an input of the graph")

    def tensor(self) -> Tensor:
        """One number a picture."""
        self.used = True
        return self.value

    def beside(self, other: Tensor) -> Tensor:
        """The same for a tensor to compute with: as many as it has rows, with further axes of length 1."""
        numbers = spread(self.tensor(), other.shape[0]) if other.ndim else self.tensor()
        return numbers.reshape(-1, *[1] * (other.ndim - 1))

    def _with(self, other: Any, combine: Callable[[Tensor], Tensor]) -> Any:  # noqa: ANN401 - a number or a tensor
        if isinstance(other, Tensor):
            return as_a_number(combine(self.beside(other)), other)
        self.used = True
        return OpenScale(combine(self.value), on=self.on)

    def __mul__(self, other: Any) -> Any:  # noqa: ANN401
        return self._with(other, lambda own: own * other)

    def __add__(self, other: Any) -> Any:  # noqa: ANN401
        return self._with(other, lambda own: own + other)

    def __sub__(self, other: Any) -> Any:  # noqa: ANN401
        return self._with(other, lambda own: own - other)

    def __rsub__(self, other: Any) -> Any:  # noqa: ANN401
        return self._with(other, lambda own: other - own)

    def __truediv__(self, other: Any) -> Any:  # noqa: ANN401
        return self._with(other, lambda own: own / other)

    __rmul__, __radd__ = __mul__, __add__


def as_a_number(made: Tensor, other: Tensor) -> Tensor:
    """What a scale and a tensor make, in the tensor's own number format, which a number of Python's would not have widened."""
    return made.to(other.dtype) if other.is_floating_point() else made


def spread(times: Tensor, count: Any) -> Tensor:  # noqa: ANN401 - a length, which may be open
    """One number a picture → as many as the guided batch has, in its order."""
    if isinstance(count, int) and (count == -1 or times.shape[0] == 1):
        return times.expand(count)
    return times if times.shape[0] == count else times.repeat(count // times.shape[0])

"""What goes into a part and what comes out: names, dtypes, symbolic dimensions and their ranges."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, StringConstraints, model_validator

from engines.errors import UnsupportedError
from engines.strict import Frozen

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Length = Annotated[int, Field(ge=1, le=2**24)]
#: A fixed length, a named dimension (`latent_height`), or a multiple of one (`8*latent_height`).
Dim = Length | Annotated[str, StringConstraints(pattern=r"^([1-9][0-9]{0,3}\*)?[a-z][a-z0-9_]{0,63}$")]
_FACTOR = re.compile(r"^(?:(\d+)\*)?(\w+)$")


@functools.cache
def dimension(dim: str) -> tuple[int, str]:
    """Factor and name of a symbolic length: (8, "latent_height") of `8*latent_height`."""
    factor, name = _FACTOR.fullmatch(dim).groups()  # pyright: ignore[reportOptionalMemberAccess] - the field's pattern holds
    return int(factor or 1), name


def still(array: np.ndarray) -> np.ndarray:
    """What nobody writes to, or a view that is so: an engine that sees it again knows that it holds the same."""
    if not array.flags.writeable:
        return array
    view = array.view()
    view.flags.writeable = False
    return view


@functools.lru_cache(maxsize=256)
def resting(shape: tuple[int, ...]) -> np.ndarray:
    """Zeros, the same object for the same shape."""
    return still(np.zeros(shape, np.float32))


class Range(Frozen):
    """The lengths that a named dimension may take: `min ≤ length ≤ max`, a multiple of `multiple`.

    `min` is 0 where there may be nothing, as of a text without ids.
    """

    min: Annotated[int, Field(ge=0, le=2**24)]
    typical: Length
    max: Length
    multiple: Length = 1

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.min <= self.typical <= self.max:
            raise ValueError(f"a range must rise: {self.min}, {self.typical}, {self.max}")
        if any(length % self.multiple for length in (self.min, self.typical, self.max)):
            raise ValueError(f"{self.min}, {self.typical}, {self.max} must be multiples of {self.multiple}")
        return self


class Port(Frozen):
    """One named tensor. Boundaries are float32 or int64; what runs inside is the graph's private matter.

    `optional`: of an input that rests at zero where nobody feeds it; it need not have a batch axis.
    """

    name: Name
    dtype: Literal["float32", "int64"] = "float32"
    shape: tuple[Dim, ...]
    optional: bool = False


class Signature(Frozen):
    """The contract of a part: its ports in order, and the range of every named dimension."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    dims: dict[Name, Range]

    @model_validator(mode="after")
    def _closed(self) -> Self:
        ports = (*self.inputs, *self.outputs)
        used = {dimension(dim)[1] for port in ports for dim in port.shape if isinstance(dim, str)}
        if used != set(self.dims):
            raise ValueError(f"dims name {sorted(self.dims)}, the ports use {sorted(used)}")
        for side in (self.inputs, self.outputs):
            if len({port.name for port in side}) != len(side):
                raise ValueError("two ports of one side share a name")
        return self

    def filled(self, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """The inputs with zeros for those optional ones that are not among them, as short as they may be."""
        absent = [port for port in self.inputs if port.optional and port.name not in inputs]
        if not absent:
            return inputs
        given = {
            dim: array.shape[axis]
            for port in self.inputs
            if (array := inputs.get(port.name)) is not None and array.ndim == len(port.shape)
            for axis, dim in enumerate(port.shape)
        }
        least = {name: allowed.min for name, allowed in self.dims.items()}
        sizes = {name: int(given.get(name, length)) for name, length in least.items()}
        return {**inputs, **{port.name: resting(self.shape(port, sizes)) for port in absent}}

    def sizes(self, inputs: Mapping[str, np.ndarray]) -> dict[str, int]:
        """Check arrays against the input ports and read off the length of every named dimension.

        Raises:
            UnsupportedError: a missing or surplus input, a wrong dtype or rank, a length out of range.

        """
        names = [port.name for port in self.inputs]
        if set(names) != set(inputs):
            raise UnsupportedError(f"expected inputs {names}, got {sorted(inputs)}")
        sizes: dict[str, int] = {}
        for port in self.inputs:
            array = inputs[port.name]
            if array.dtype != port.dtype or array.ndim != len(port.shape):
                raise UnsupportedError(
                    f"input {port.name!r} must be {port.dtype} {list(port.shape)}, got {array.dtype} {list(array.shape)}"
                )
            for dim, length in zip(port.shape, array.shape, strict=True):
                self._bind(port, dim, length, sizes)
        return sizes

    def _bind(self, port: Port, dim: Dim, length: int, sizes: dict[str, int]) -> None:
        if isinstance(dim, int):
            if dim != length:
                raise UnsupportedError(f"input {port.name!r} must be {list(port.shape)}; one length is {length}, not {dim}")
            return
        factor, name = dimension(dim)
        size, rest = divmod(length, factor)
        allowed = self.dims[name]
        if rest or not allowed.min <= size <= allowed.max or size % allowed.multiple:
            low, high, step = self.lengths(dim)
            raise UnsupportedError(
                f"input {port.name!r}: {dim} is {length}; this engine takes {low} to {high} in steps of {step}"
            )
        if sizes.setdefault(name, size) != size:
            raise UnsupportedError(f"input {port.name!r}: {name} is {size} here and {sizes[name]} in another input")

    def lengths(self, dim: Dim) -> tuple[int, int, int]:
        """Smallest and largest length of one dimension of a port, and the step between lengths."""
        if isinstance(dim, int):
            return dim, dim, dim
        factor, name = dimension(dim)
        allowed = self.dims[name]
        return allowed.min * factor, allowed.max * factor, allowed.multiple * factor

    @property
    def needed(self) -> list[str]:
        """Names of the inputs that must be fed."""
        return [port.name for port in self.inputs if not port.optional]

    @property
    def shared(self) -> frozenset[str]:
        """Names of the inputs that have no batch axis: all items have the same."""
        return frozenset(port.name for port in self.inputs if port.optional and port.shape[0] != self.inputs[0].shape[0])

    def port(self, name: str) -> Port | None:
        """Find a port by name, outputs first; None when there is none."""
        return next((port for port in (*self.outputs, *self.inputs) if port.name == name), None)

    def shape(self, port: Port, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Concrete shape of a port for given lengths of the named dimensions."""
        return tuple(dim if isinstance(dim, int) else dimension(dim)[0] * sizes[dimension(dim)[1]] for dim in port.shape)

    def extent(self, which: Literal["min", "typical", "max"]) -> dict[str, int]:
        """Length of every named dimension at one end of its range."""
        return {name: getattr(allowed, which) for name, allowed in self.dims.items()}

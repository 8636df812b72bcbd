"""Safetensors files with numpy alone: names, tensors as float32, and the words about them. Read with suspicion."""

from __future__ import annotations

import functools
import math
import mmap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from engines.errors import BundleError, UnsupportedError
from engines.strict import read_json

#: Type as a file names it → numpy's; bfloat16 is the upper half of a float32.
_TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "F8_E4M3": "u1",
    "F8_E5M2": "u1",
}
#: Bytes of a header; the format's own limit.
_LONGEST = 100_000_000
_AGAIN = "Download or copy it again."


@dataclass(frozen=True)
class TensorFile:
    """An opened file.

    Attributes:
        shapes: name → shape.
        metadata: what its writer put into it.

    """

    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, str]
    _get: Callable[[str], np.ndarray]

    def __getitem__(self, name: str) -> np.ndarray:
        """A tensor as float32."""
        return self._get(name)


def opened(file: Path) -> TensorFile:
    """Read a file's header; tensors are read when they are asked for.

    Raises:
        UnsupportedError: it is not there, or not a whole safetensors file, or holds a type that is not read.

    """
    try:
        with file.open("rb") as stream:
            size = stream.seek(0, 2)
            data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    except OSError as error:
        raise UnsupportedError(f"{file} cannot be read: {error.strerror or error}.\n  Name a .safetensors file.") from error
    length = int.from_bytes(data[:8], "little")
    if size < 8 or length > min(_LONGEST, size - 8):
        raise UnsupportedError(f"{file} is not a whole safetensors file.\n  {_AGAIN}")
    try:
        header = read_json(data[8 : 8 + length], file)
        entries = {name: _entry(entry, size - 8 - length) for name, entry in header.items() if name != "__metadata__"}
        told = cast("dict[Any, Any]", header.get("__metadata__") or {})
        words = {str(key): str(value) for key, value in told.items()}
    except (BundleError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UnsupportedError(f"{file} is not a whole safetensors file: its header is damaged.\n  {_AGAIN}") from error
    if unread := sorted({kind for kind, _, _ in entries.values()} - set(_TYPES)):
        raise UnsupportedError(f"{file} holds numbers of type {unread[0]}.\n  Save it as one of {', '.join(_TYPES)}.")

    def get(name: str) -> np.ndarray:
        kind, shape, start = entries[name]
        found = np.frombuffer(data, _TYPES[kind], math.prod(shape), 8 + length + start).reshape(shape)
        if kind == "BF16":
            return (found.astype(np.uint32) << 16).view(np.float32)
        if kind == "F8_E5M2":  # the upper half of a float16
            return (found.astype(np.uint16) << 8).view(np.float16).astype(np.float32)
        return _e4m3()[found] if kind == "F8_E4M3" else found.astype(np.float32)

    return TensorFile({name: shape for name, (_, shape, _) in entries.items()}, words, get)


@functools.cache
def _e4m3() -> np.ndarray:
    """The 256 numbers of 1 sign, 4 exponent and 3 mantissa bits, whose largest pattern is NaN and which have no infinity."""
    bits = np.arange(256)
    exponent, mantissa = (bits >> 3) & 15, bits & 7
    size = np.where(exponent, (8 + mantissa) * 2.0 ** (exponent - 10.0), mantissa * 2.0**-9)
    size[(bits & 127) == 127] = np.nan
    return np.where(bits & 128, -size, size).astype(np.float32)


def _entry(entry: dict[str, Any], room: int) -> tuple[str, tuple[int, ...], int]:
    """Type, shape and first byte of a tensor.

    Raises:
        ValueError: it does not lie in the file, or is not as long as it must be.

    """
    kind, shape, (start, end) = str(entry["dtype"]), cast("list[Any]", entry["shape"]), entry["data_offsets"]
    if any(type(each) is not int or each < 0 for each in (*shape, start, end)) or not start <= end <= room:
        raise ValueError("a tensor lies outside of the file")
    if kind in _TYPES and end - start != math.prod(shape) * np.dtype(_TYPES[kind]).itemsize:
        raise ValueError("a tensor has another length than its shape")
    return kind, tuple(shape), start

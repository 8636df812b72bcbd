"""Sizes in bytes, as people write them: `8 GB`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

#: Suffix → how many bytes it is.
BYTES: Mapping[str, float] = {"": 1.0, "B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
_SIZE = re.compile(r"([0-9.]+)\s*([A-Za-z]+)")


def size(text: str) -> float:
    """Bytes of a text such as `8 GB`.

    Raises:
        ValueError: it is no size; says what to write.

    """
    read = _SIZE.fullmatch(text.strip())
    if read is None or read[2] not in BYTES:
        raise ValueError(f"{text!r} is no size; write such as 8 GB{among(BYTES)}")
    return float(read[1]) * BYTES[read[2]]


def among(units: Iterable[str]) -> str:
    """The units that there are, for the end of a message."""
    return f"; there are: {', '.join(unit for unit in units if unit)}"

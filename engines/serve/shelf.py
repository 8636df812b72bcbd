"""Finished pictures that an answer names by URL: in memory, for an hour, so many bytes of them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

#: As long as OpenAI's are there.
_SECONDS = 3600


class Shelf:
    """Pictures by names that nobody can guess; the oldest make room."""

    def __init__(self, limit: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._clock = limit, clock
        self._kept: dict[str, tuple[float, bytes, str]] = {}

    def put(self, data: bytes, kind: str) -> str:
        """Keep a file of that kind, such as `png`, and return its name."""
        name = f"{secrets.token_urlsafe(24)}.{kind}"
        self._kept[name] = self._clock() + _SECONDS, data, kind
        self._tidy()
        return name

    def get(self, name: str) -> tuple[bytes, str] | None:
        """The file of that name and its kind; None where it is gone or never was."""
        self._tidy()
        found = self._kept.get(name)
        return found and found[1:]

    def _tidy(self) -> None:
        now, total = self._clock(), sum(len(data) for _, data, _ in self._kept.values())
        for name, (until, data, _) in list(self._kept.items()):
            if until >= now and (total <= self._limit or len(self._kept) == 1):
                return
            del self._kept[name]
            total -= len(data)

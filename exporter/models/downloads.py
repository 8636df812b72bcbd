"""Whom a download tells how far it is: the display that is open, else the hub library's own bars."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any

#: Called with the bytes that lie on the disk so far and those that will, as far as they are known.
Told = Callable[[int, int], None]
#: Opened with a repository's name for as long as the download runs.
Display = Callable[[str], AbstractContextManager[Told]]

_open: ContextVar[Display | None] = ContextVar("display of downloads", default=None)


@contextlib.contextmanager
def shown(display: Display) -> Iterator[None]:
    """Have downloads within this block tell `display`."""
    token = _open.set(display)
    try:
        yield
    finally:
        _open.reset(token)


@contextlib.contextmanager
def bars(repo: str) -> Iterator[type[Any] | None]:
    """The class that the hub's library is to make progress bars of; null is its own."""
    display = _open.get()
    if display is None:
        yield None
        return
    from tqdm import tqdm  # noqa: PLC0415 - the hub's library brings it

    with display(repo) as tell:

        class Bar(tqdm):
            """Tells of the bytes, and draws nothing."""

            def __init__(self, *args: Any, **more: Any) -> None:  # noqa: ANN401 - as the library makes its own
                super().__init__(*args, **{**more, "file": io.StringIO()})

            def display(self, *_: object, **__: object) -> None:
                # Of two bars that count bytes the one of those on the disk goes on after an interruption where it was.
                if self.unit == "B" and not str(self.desc).startswith("Download"):
                    tell(int(self.n), int(self.total or 0))

            def close(self) -> None:
                if not self.disable:
                    self.display()
                super().close()

        yield Bar

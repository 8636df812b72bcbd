"""Stages as they run and end: a line for each that is done, and on a terminal a live table of those that are at work."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from exporter.models import downloads
from exporter.report.console import console

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from exporter.stages.stage import Stage

_NAME = 43  # columns of a stage and whom it is for
_PER_SECOND = 8  # pictures of the live table


class StageLines:
    """Prints one line per finished stage; on a terminal those that run are shown below, with the seconds that they took so far.

    It may be told from several threads: a build may have a second process that makes stages for it. Each stage has one line,
    by whoever made it.

    Attributes:
        rows: what was printed, as data.

    """

    def __init__(self, *, error: bool) -> None:
        self._screen, self.rows = console(error=error), list[dict[str, Any]]()
        # Stage → its spinner; of those that another process is at, the build's own row where it came first.
        self._lock, self._running = threading.RLock(), dict[tuple[str, str], Any]()
        self._others, self._made = dict[tuple[str, str], dict[str, Any] | None](), set[tuple[str, str]]()
        self._waiting: Stage[Any] | None = None
        self._live: Live | None = None

    def __call__(
        self, stage: Stage[Any], seconds: float | None = None, *, cached: bool = False, why: str = "", by: str = ""
    ) -> None:
        """Show that a stage begins (`seconds` is None), that it is done, or that another process gave it up (NaN)."""
        with self._lock:
            if not by and (stage.name in self._made or (stage.name in self._others and seconds is None)):
                self._waiting = stage  # another made it, or is at it: its line says so
                return
            if seconds is None:
                self._begin(stage, by)
                return
            row = {"stage": stage.verb, "subject": stage.subject, "seconds": round(seconds, 2), "cached": cached, "why": why}
            if not by and stage.name in self._others:
                self._others[stage.name] = row  # printed if the other gave it up
                return
            self._running.pop(stage.name, None)
            waiting = self._others.pop(stage.name, None) if by else None
            if by and not math.isnan(seconds):
                self._made.add(stage.name)
                self._print(row, by)
            elif not by or waiting:
                self._print(waiting or row)
            elif stage is self._waiting:
                self._begin(stage, "")
            self._show()

    @contextlib.contextmanager
    def fetching(self, repo: str) -> Iterator[Callable[[int, int], None]]:
        """Show a download among the stages; its line has the time and the size, if anything had to come."""
        from rich.text import Text  # noqa: PLC0415 - --help stays quick

        name, sizes, since = ("fetch", repo), [0, 0], time.perf_counter()
        text = Text(_name(*name, ""))

        def tell(done: int, total: int) -> None:
            sizes[:] = done, total
            text.plain = f"{_name(*name, '')}  {done / 1e6:,.0f} of {total / 1e6:,.0f} MB"

        with self._lock:
            if self._screen.is_terminal:
                self._running[name] = text, self._screen.get_time()
            self._show()
        try:
            yield tell
        finally:
            with self._lock:
                self._running.pop(name, None)
                self._show()
                if sizes[0]:
                    seconds = f"{time.perf_counter() - since:.1f} s"
                    self._screen.print(f"{_name(*name, ''):<{_NAME}}{seconds:>9}  {sizes[0] / 1e6:,.1f} MB")

    def say(self, sentence: str) -> None:
        """Print a line of its own."""
        self._screen.print(sentence)

    def close(self) -> None:
        """Take what runs off the terminal."""
        with self._lock:
            self._running.clear()
            self._show()

    def _begin(self, stage: Stage[Any], by: str) -> None:
        from rich.spinner import Spinner  # noqa: PLC0415 - --help stays quick

        if by:
            self._others[stage.name] = None
        if self._screen.is_terminal and not stage.resumes:  # which prints lines of its own
            spinner = Spinner("dots", _name(stage.verb, stage.subject, by))
            self._running[stage.name] = spinner, self._screen.get_time()  # a spinner's own start is where it was measured
        self._show()

    def _print(self, row: dict[str, Any], by: str = "") -> None:
        self.rows.append(row)
        told = "reused" if row["cached"] else f"{row['seconds']:.1f} s"
        self._screen.print(f"{_name(row['stage'], row['subject'], by):<{_NAME}}{told:>9}  {row['why']}".rstrip())

    def _show(self) -> None:
        """Begin or end the live table, as there is something to show."""
        from rich.live import Live  # noqa: PLC0415

        if self._running and self._live is None:
            self._live = Live(console=self._screen, get_renderable=self._table, refresh_per_second=_PER_SECOND, transient=True)
            self._live.start()
        elif not self._running and self._live is not None:
            live, self._live = self._live, None
            live.stop()

    def _table(self) -> RenderableType:
        from rich.table import Table  # noqa: PLC0415

        grid = Table.grid(padding=(0, 2, 0, 0))
        now = self._screen.get_time()
        for spinner, since in tuple(self._running.values()):
            grid.add_row(spinner, f"{now - since:.0f} s")
        return grid


@contextlib.contextmanager
def stage_lines(*, error: bool) -> Iterator[StageLines]:
    """Lines of the stages, and of what they download, on stdout or stderr."""
    lines = StageLines(error=error)
    try:
        with downloads.shown(lines.fetching):
            yield lines
    finally:
        lines.close()


def _name(verb: str, subject: str, by: str) -> str:
    return f"{verb:<9}{subject}{f', by {by}' if by else ''}"

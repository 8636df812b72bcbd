"""Who runs a sweep's tasks: this machine, one after the other, each kind in a process that may die without the sweep."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

R = TypeVar("R")
#: How often a task is begun again whose process died.
RETRIES = 1


class Runner(Protocol):
    """Runs tasks: functions of a module, with arguments that can be sent to another process.

    Attributes:
        width: how many points may be at work at once.

    """

    width: int

    def run(self, function: Callable[..., R], *arguments: object, alone: bool = False) -> Future[R]:
        """Wait for a task; the future is done, and has WorkerDied where the task's process died again and again.

        Args:
            function: what to do.
            arguments: its own.
            alone: in a process of its own, while nothing else of the sweep runs on that machine.

        """
        ...


class WorkerDied(Exception):  # noqa: N818 - the name says what happened
    """A task's process died, as of a signal, or of memory that ran out."""


class LocalRunner:
    """One task at a time on this machine. Builds share a process, which has loaded its libraries; a measurement has its own."""

    width = 1

    def __init__(self) -> None:
        self._pool = _pool()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)

    def run(self, function: Callable[..., R], *arguments: object, alone: bool = False) -> Future[R]:
        """Run a task here."""
        for _ in range(RETRIES + 1):
            with _pool() if alone else nullcontext(self._pool) as pool:
                future = pool.submit(function, *arguments)
                broken = isinstance(future.exception(), BrokenProcessPool)
            if not broken:
                return future
            if not alone:
                self._pool.shutdown()
                self._pool = _pool()
        return died()


def _pool() -> ProcessPoolExecutor:
    # Not forked: a process that draws shares no thread of one that built.
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def died() -> Future[Any]:
    """What a task comes to whose process died each time."""
    future: Future[Any] = Future()
    told = f"the process died {RETRIES + 1} times, as of a signal or because memory ran out; the system's log tells (dmesg)"
    future.set_exception(WorkerDied(told))
    return future

"""Who runs a sweep's tasks: this machine, one after the other, each kind in a process that may die without the sweep."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from engines.errors import UnsupportedError
from exporter import machine
from exporter.sweep.resources import ANYTHING, Resources

R = TypeVar("R")
#: Imported by the server that forks the processes, and by no other of them: half a second of each.
_TASKS = ("exporter.sweep.build_point", "exporter.sweep.measure_point")
#: Where that is safe: the server has loaded these modules, and has no thread, nor a library that computes on any.
_FORKS = sys.platform == "linux"
#: How often a task is begun again whose process died.
RETRIES = 1


class Runner(Protocol):
    """Runs tasks: functions of a module, with arguments that can be sent to another process.

    Attributes:
        width: how many points may be at work at once.

    """

    width: int

    def run(self, function: Callable[..., R], *arguments: object, alone: bool = False, asked: Resources = ANYTHING) -> Future[R]:
        """Wait for a task; the future is done, and has WorkerDied where the task's process died again and again.

        Where there is no machine as it asks for, it has NoSuchMachine.

        Args:
            function: what to do.
            arguments: its own.
            alone: in a process of its own, while nothing else of the sweep runs on that machine.
            asked: of the machine, and for the task.

        """
        ...


class WorkerDied(Exception):  # noqa: N818 - the name says what happened
    """A task's process died, as of a signal, or of memory that ran out."""


class NoSuchMachine(UnsupportedError):  # noqa: N818 - as above
    """Nobody who is here now has what a task asks for."""


class LocalRunner:
    """One task at a time on this machine. Builds share a process, which has loaded its libraries; a measurement has its own."""

    width = 1

    def __init__(self) -> None:
        self._pool = _pool()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)

    def run(self, function: Callable[..., R], *arguments: object, alone: bool = False, asked: Resources = ANYTHING) -> Future[R]:
        """Run a task here."""
        if asked != ANYTHING and (told := _lacks(asked)):
            return failed(NoSuchMachine(f"{asked} is asked for, and {told}. Leave it out, or name a cluster by --ray."))
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
    """One process that shares no thread with this one, nor one that measures any with one that built."""
    context = multiprocessing.get_context("forkserver" if _FORKS else "spawn")
    if _FORKS:
        context.set_forkserver_preload(list(_TASKS))
    return ProcessPoolExecutor(1, mp_context=context, initializer=_enter, initargs=(dict(os.environ),))


def _enter(environment: Mapping[str, str]) -> None:
    """Take over the sweep's environment, which may be another than when the server was started that forks the processes."""
    os.environ.clear()
    os.environ.update(environment)


def _lacks(asked: Resources) -> str:
    """What this machine has less of than a task asks for, in words; empty where it has all."""
    here = machine.environment()
    if (asked.cpus or 0) > here.cores:
        return f"this machine has {here.cores}"
    if asked.bytes > here.memory:
        return f"this machine has {here.memory / 2**30:.0f} GiB"
    found = machine.compute_capabilities()
    if asked.gpu and asked.gpu not in found:
        return f"this machine has {' and '.join(found) or 'no GPU'}"
    return ""


def failed(error: BaseException) -> Future[Any]:
    """What a task comes to that was not begun, or raised."""
    future: Future[Any] = Future()
    future.set_exception(error)
    return future


def died() -> Future[Any]:
    """What a task comes to whose process died each time."""
    told = f"the process died {RETRIES + 1} times, as of a signal or because memory ran out; the system's log tells (dmesg)"
    return failed(WorkerDied(told))

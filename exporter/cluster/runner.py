"""Who runs tasks, and what one comes to that was not begun or whose process died."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from engines.errors import UnsupportedError
from exporter.cluster.resources import ANYTHING, Resources

R = TypeVar("R")
#: How often a task is begun again whose process died.
RETRIES = 1


class Runner(Protocol):
    """Runs tasks: functions of a module, with arguments that can be sent to another process.

    Attributes:
        width: how many tasks may be at work at once.

    """

    width: int

    def run(self, function: Callable[..., R], *arguments: object, alone: bool = False, asked: Resources = ANYTHING) -> Future[R]:
        """Wait for a task; the future is done, and has WorkerDied where the task's process died again and again.

        Where there is no machine as it asks for, it has NoSuchMachine.

        Args:
            function: what to do.
            arguments: its own.
            alone: in a process of its own, while nothing else runs on that machine.
            asked: of the machine, and for the task.

        """
        ...

    def refuse(self, asked: Resources) -> None:
        """Raise NoSuchMachine where nobody has what a task would ask for."""
        ...


class WorkerDied(Exception):  # noqa: N818 - the name says what happened
    """A task's process died, as of a signal, or of memory that ran out."""


class NoSuchMachine(UnsupportedError):  # noqa: N818 - as above
    """Nobody who is here now has what a task asks for."""


def failed(error: BaseException) -> Future[Any]:
    """What a task comes to that was not begun, or raised."""
    future: Future[Any] = Future()
    future.set_exception(error)
    return future


def died() -> Future[Any]:
    """What a task comes to whose process died each time."""
    told = f"the process died {RETRIES + 1} times, as of a signal or because memory ran out; the system's log tells (dmesg)"
    return failed(WorkerDied(told))

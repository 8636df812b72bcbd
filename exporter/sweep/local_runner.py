"""A sweep's tasks on this machine, one after the other, each kind in a process that may die without the sweep."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from types import TracebackType
from typing import Self, TypeVar

from exporter import machine
from exporter.cluster.resources import ANYTHING, Resources
from exporter.cluster.runner import RETRIES, NoSuchMachine, died, failed
from exporter.sweep import nursery

R = TypeVar("R")
#: Half a second of imports, which a process has from the one that it is forked from.
_TASKS = ("exporter.sweep.build_point", "exporter.sweep.measure_point")
#: Where a server may fork processes if this one cannot be copied: it has these modules, no thread, and no library that has some.
_FORKS = sys.platform == "linux"


class LocalRunner:
    """One task at a time on this machine. Builds share a process, which has loaded its libraries; a measurement has its own."""

    width = 1

    def __init__(self) -> None:
        for name in _TASKS:
            importlib.import_module(name)  # so that it is there in copies of this process
        self._nursery = nursery.Nursery() if nursery.possible() else None
        self._pool = self._process()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)
        if self._nursery:
            self._nursery.close()

    def run(self, function: Callable[..., R], *arguments: object, alone: bool = False, asked: Resources = ANYTHING) -> Future[R]:
        """Run a task here."""
        try:
            self.refuse(asked)
        except NoSuchMachine as error:
            return failed(error)
        for _ in range(RETRIES + 1):
            with self._process() if alone else nullcontext(self._pool) as pool:
                future = pool.submit(function, *arguments)
                broken = isinstance(future.exception(), BrokenProcessPool)
            if not broken:
                return future
            if not alone:
                self._pool.shutdown()
                self._pool = self._process()
        return died()

    def refuse(self, asked: Resources) -> None:
        """Raise NoSuchMachine where this machine has less."""
        if asked != ANYTHING and (told := _lacks(asked)):
            raise NoSuchMachine(f"{asked} is asked for, and {told}. Leave it out, or name a cluster by --ray.")

    def _process(self) -> ProcessPoolExecutor | nursery.OwnProcess:
        """One process that shares no thread with this one, nor one that measures any with one that built."""
        return self._nursery.process() if self._nursery else _pool()


def _pool() -> ProcessPoolExecutor:
    """One that is forked from a server, which imports what this process has imported, or imports it itself."""
    context = multiprocessing.get_context("forkserver" if _FORKS else "spawn")
    if _FORKS:
        context.set_forkserver_preload(list(_TASKS))
    return ProcessPoolExecutor(1, mp_context=context, initializer=nursery.enter, initargs=(dict(os.environ),))


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

"""Engines that the machines of a cluster build, while this one goes on with what they need next."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from engines.errors import MachineError, UnsupportedError
from exporter import machine
from exporter.cluster.exchange import Exchange
from exporter.cluster.resources import Resources
from exporter.cluster.runner import NoSuchMachine, Runner, WorkerDied
from exporter.stages.engine_work import EngineWork
from exporter.stages.stage import Elsewhere, Results, Stage, closure
from exporter.stages.store import Store
from exporter.stages.vendors import vendors

#: Who makes these stages, in a report.
BY = "the cluster"
#: Memory that a build is given: what the libraries take, and so many times what graph and weights are.
_LEAST, _TIMES = 2**30, 4


@dataclass(frozen=True)
class Cluster:
    """Machines that build engines, and how files come to them.

    Attributes:
        runner: who finds a machine for a task.
        exchange: where files are handed over; None where the machines see the same files at the same paths.

    """

    runner: Runner
    exchange: Exchange | None = None


@dataclass(frozen=True)
class EngineTask:
    """A build on another machine.

    Attributes:
        name: of the stage, for messages.
        work: what is built; its files are read where they lie, or are those in the exchange.
        version: of the vendor's library where the plan was made.
        folder: to build into, where there is no exchange.
        exchange: URL of the exchange, the places of the files in it, and that of the engine.

    """

    name: str
    work: EngineWork
    version: str
    folder: Path
    exchange: tuple[str, tuple[str, ...], str] | None = None


def build_engine(task: EngineTask) -> tuple[str, ...]:
    """Do it, on the machine that was found.

    Returns:
        Names of the engine's files, or their places in the exchange.

    Raises:
        MachineError: the files are not here.
        MissingDependency, UnsupportedError: the library is not here, or another release, or it cannot build that.

    """
    if (here := task.work.backend.version) != task.version:
        raise UnsupportedError(
            f"{task.name}: a machine of the cluster has release {here} of the library, and the one that plans {task.version}. "
            "Install the same on all."
        )
    with vendors(task.name):
        if task.exchange:
            return _through(task, *task.exchange)
        if lacking := [file for file in (*task.work.files, task.folder) if not file.exists()]:
            raise MachineError(
                f"{task.name}: a machine of the cluster does not see {lacking[0]}.\n"
                "  Name a place that all machines reach: --exchange URL."
            )
        for left in task.folder.iterdir():  # of a machine that was lost at it
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        task.work.build(task.folder)
        return tuple(sorted(file.name for file in task.folder.iterdir()))


def _through(task: EngineTask, url: str, places: tuple[str, ...], result: str) -> tuple[str, ...]:
    exchange = Exchange(url)
    with TemporaryDirectory() as here:
        graph, engine = Path(here, "graph"), Path(here, "engine")
        graph.mkdir()
        engine.mkdir()
        replace(task.work, files=exchange.fetch(places, graph)).build(engine)
        return exchange.send(sorted(engine.iterdir()), result)


def refuse(stages: Iterable[Stage[Any]], store: Store, cluster: Cluster | None) -> None:
    """Raise UnsupportedError where an engine that is not there yet needs a GPU that nobody has."""
    for stage in stages:
        gpu = stage.elsewhere.gpu if stage.elsewhere else ""
        if not gpu or not store.why(stage.key):
            continue
        if cluster is None and gpu not in (found := machine.compute_capabilities()):
            raise UnsupportedError(
                f"{stage.subject}: its engine is built on a GPU of compute capability {gpu}, and this machine has "
                f"{' and '.join(found) or 'none'}.\n  Build on a cluster that has one (--ray ADDRESS), or leave {gpu} out."
            )
        if cluster is not None:
            try:
                cluster.runner.refuse(Resources(gpu=gpu))
            except NoSuchMachine as error:
                raise NoSuchMachine(f"{stage.subject}: {error}") from error


class EnginesAway:
    """Builds that were begun on the cluster."""

    def __init__(self, cluster: Cluster, store: Store, results: Results, report: Callable[..., None]) -> None:
        self._cluster, self._store, self._results, self._report = cluster, store, results, report
        self._threads = ThreadPoolExecutor(max(1, cluster.runner.width))
        self._begun = dict[Stage[Any], Future[None]]()
        self._sent = dict[tuple[Path, ...], tuple[str, ...]]()
        self._place = f"build-{uuid4().hex[:12]}"

    def begin(self, stage: Stage[Any]) -> bool:
        """Begin a stage that another machine can do; whether that is one, and is not there yet."""
        if stage.elsewhere is None or not self._store.why(stage.key):
            return False
        task = self._task(stage, stage.elsewhere)
        self._begun[stage] = self._threads.submit(self._make, stage, task)
        return True

    def hangs_on(self, stage: Stage[Any]) -> bool:
        """Whether a stage needs one that was begun."""
        return not self._begun.keys().isdisjoint(closure(stage.needs))

    def finish(self) -> None:
        """Wait for all; raise what the first that failed raised. What others built is in the store."""
        for future in self._begun.values():
            future.result()

    def fill(self, stage: Stage[Any], elsewhere: Elsewhere, folder: Path) -> None:
        """Have a stage built on the cluster into an empty folder, whatever the store holds.

        Raises:
            MachineError: processes died at it, or the machines see other files.
            UnsupportedError, MissingDependency: as a build does, and where no machine has what it asks for.

        """
        work, task = self._task(stage, elsewhere)
        self._fill(stage, work, task, folder)

    def close(self) -> None:
        """Wait for what runs, and remove what was handed over."""
        self._threads.shutdown(cancel_futures=True)
        if self._cluster.exchange and self._sent:
            self._cluster.exchange.remove(self._place)

    def _task(self, stage: Stage[Any], elsewhere: Elsewhere) -> tuple[EngineWork, EngineTask]:
        work, exchange = elsewhere.work(self._results), self._cluster.exchange
        sent = None
        if exchange:
            if work.files not in self._sent:
                self._sent[work.files] = exchange.send(work.files, f"{self._place}/graph-{len(self._sent)}")
            sent = exchange.url, self._sent[work.files], f"{self._place}/{stage.key.digest}"
        return work, EngineTask(f"{stage.verb} of {stage.subject}", work, work.backend.version, Path(), sent)

    def _make(self, stage: Stage[Any], asked: tuple[EngineWork, EngineTask]) -> None:
        self._report(stage, by=BY)
        start, why = time.perf_counter(), self._store.why(stage.key)
        try:
            self._results.folder(stage, partial(self._fill, stage, *asked))
        except BaseException:
            self._report(stage, math.nan, why=why, by=BY)
            raise
        self._report(stage, time.perf_counter() - start, why=why, by=BY)

    def _fill(self, stage: Stage[Any], work: EngineWork, task: EngineTask, folder: Path) -> None:
        gpu = stage.elsewhere.gpu if stage.elsewhere else ""
        asked = Resources(memory=f"{-(-(_LEAST + _TIMES * work.bytes) // 2**20)} MiB", gpu=gpu or None)
        future = self._cluster.runner.run(build_engine, replace(task, folder=folder), asked=asked)
        try:
            names = future.result()
        except WorkerDied as error:
            raise MachineError(f"{task.name}: {error}") from error
        except NoSuchMachine as error:
            raise NoSuchMachine(f"{task.name}: {error}") from error
        if self._cluster.exchange:
            self._cluster.exchange.fetch(names, folder)
        elif lacking := [name for name in names if not (folder / name).is_file()]:
            raise MachineError(
                f"{task.name}: {lacking[0]} was built, and is not here: the cluster's machines do not see {folder.parent}.\n"
                "  Name a place that all machines reach: --exchange URL."
            )


@contextmanager
def engines_away(cluster: Cluster, store: Store, results: Results, report: Callable[..., None]) -> Iterator[EnginesAway]:
    """Builds on a cluster, which are waited for at the end."""
    found = EnginesAway(cluster, store, results, report)
    try:
        yield found
    finally:
        found.close()

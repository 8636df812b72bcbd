"""A sweep's tasks on a Ray cluster, whose machines see the same files at the same paths. Ray is imported where it is used."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Self, TypeVar

from engines.errors import MissingDependency, UnsupportedError
from exporter.sweep.runner import RETRIES, died

R = TypeVar("R")
#: What --ray takes for a cluster on this machine, which ends with the sweep.
LOCAL = "local"
#: Ray's errors that tell of a lost process or machine, and not of the task.
_LOST = ("WorkerCrashedError", "NodeDiedError", "OutOfMemoryError", "ObjectLostError", "LocalRayletDiedError")


class RayRunner:
    """Builds side by side, each on one CPU; a measurement on all CPUs of a machine, so that nothing else of ours runs there.

    Args:
        address: `auto` for the cluster that this machine belongs to, the address of another, or LOCAL.

    Raises:
        MissingDependency: Ray is not installed.
        UnsupportedError: no cluster answers.

    """

    def __init__(self, address: str) -> None:
        try:
            self._ray = importlib.import_module("ray")
        except ModuleNotFoundError as error:
            raise MissingDependency("ray", "ray") from error
        paths = {"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}}
        where = {} if address == LOCAL else {"address": address}
        try:
            self._ray.init(**where, runtime_env=paths, log_to_driver=False, include_dashboard=False if address == LOCAL else None)
        except (ConnectionError, ValueError, RuntimeError) as error:
            told = str(error).splitlines()[0]
            raise UnsupportedError(
                f"--ray {address}: no cluster answers ({told}). Start one with `ray start --head`, name its address, or take "
                f"--ray {LOCAL}."
            ) from error
        # The largest machine's, since a task that asks for more than any has waits for ever.
        cpus = [int(node["Resources"].get("CPU", 0)) for node in self._ray.nodes() if node["Alive"]]
        self.width, self._whole = max(1, sum(cpus)), max([1, *cpus])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ray.shutdown()

    def run(self, function: Callable[..., R], *arguments: object, alone: bool = False) -> Future[R]:
        """Run a task somewhere, and again where its process or machine was lost."""
        # A process ends with one call, so that a measurement has one of its own.
        asked = {"num_cpus": self._whole, "max_calls": 1} if alone else {"num_cpus": 1}
        task = self._ray.remote(max_retries=RETRIES, **asked)(function)
        found: Future[R] = task.remote(*arguments).future()
        error = found.exception()
        if error is None:
            return found
        kinds = importlib.import_module("ray.exceptions")
        if isinstance(error, tuple(getattr(kinds, name) for name in _LOST)):
            return died()
        raised: BaseException | None = getattr(error, "cause", None) if isinstance(error, kinds.RayTaskError) else None
        if raised is None:
            return found
        own: Future[R] = Future()
        raised.__cause__ = RuntimeError(str(error))  # Ray's account of where it was
        own.set_exception(raised)
        return own

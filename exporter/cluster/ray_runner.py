"""Tasks on a Ray cluster, those of a sweep or of a build. Ray is imported where it is used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

from engines import ray_cluster
from engines.errors import UnsupportedError
from exporter.cluster.resources import ANYTHING, Resources
from exporter.cluster.runner import RETRIES, NoSuchMachine, died, failed

R = TypeVar("R")
#: How a resource is called by which users say of a machine what its GPU's compute capability is.
_CAPABILITY = "compute_capability:"
#: Compute capability → GPUs by Ray's names (ray.util.accelerators), which it finds by itself.
_GPUS = {
    "6.0": ("P100",),
    "6.1": ("P4",),
    "7.0": ("V100",),
    "7.5": ("T4",),
    "8.0": ("A100",),
    "8.6": ("A10G",),
    "8.9": ("L4", "L40S"),
    "9.0": ("H100", "H200", "H20"),
    "10.0": ("B200", "GB200"),
    "10.3": ("B300", "GB300"),
    "12.0": ("RTX-PRO-6000",),
}
#: Of a resource that says what a machine is: any number of tasks may have it.
_A_LITTLE = 0.001
#: Ray's errors that tell of a lost process or machine, and not of the task.
_LOST = ("WorkerCrashedError", "NodeDiedError", "OutOfMemoryError", "ObjectLostError", "LocalRayletDiedError")
#: Those that tell of a machine on which this program is not, or is another release.
_STRANGE = ("RaySystemError", "RuntimeEnvSetupError")


class RayRunner:
    """Builds side by side, each on one CPU unless more are asked for; a measurement on all CPUs of a machine, and so alone there.

    Args:
        address: `auto` for the cluster that this machine belongs to, the address of another, or `local`.

    Raises:
        MissingDependency: Ray is not installed.
        UnsupportedError: no cluster answers.

    """

    def __init__(self, address: str) -> None:
        self._ray = ray_cluster.join(address)
        self.width = max(1, sum(int(node["Resources"].get("CPU", 0)) for node in self._ray.nodes() if node["Alive"]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ray.shutdown()

    def run(self, function: Callable[..., R], *arguments: object, alone: bool = False, asked: Resources = ANYTHING) -> Future[R]:
        """Run a task somewhere, and again where its process or machine was lost."""
        try:
            options = self._options(asked, alone=alone)
        except NoSuchMachine as error:
            return failed(error)
        task = self._ray.remote(max_retries=RETRIES, **options)(function)
        found: Future[R] = task.remote(*arguments).future()
        error = found.exception()
        if error is None:
            return found
        kinds = importlib.import_module("ray.exceptions")
        if isinstance(error, tuple(getattr(kinds, name) for name in _LOST)):
            return died()
        if isinstance(error, tuple(getattr(kinds, name) for name in _STRANGE)):
            told = str(error).splitlines()[0].removeprefix("System error: ")
            strange = UnsupportedError(
                f"a machine of the cluster cannot begin the task: {told}\n"
                "  Install the same release of t2iexport on all machines."
            )
            strange.__cause__ = error
            return failed(strange)
        raised: BaseException | None = getattr(error, "cause", None) if isinstance(error, kinds.RayTaskError) else None
        if raised is None:
            return found
        raised.__cause__ = RuntimeError(str(error))  # Ray's account of where it was
        return failed(raised)

    def refuse(self, asked: Resources) -> None:
        """Raise NoSuchMachine where no machine of the cluster has it."""
        self._options(asked, alone=False)

    def _options(self, asked: Resources, *, alone: bool) -> dict[str, Any]:
        """What Ray is asked for."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        words = [word for word in _spelled(asked.gpu) if any(word in node for node in nodes)] if asked.gpu else [""]
        for word in words:
            fitting = [node for node in nodes if _has(node, asked, word)]
            if not fitting:
                continue
            # The largest machine's, since a task that asks for more than any has waits for ever.
            cpus = max(max(1, int(node.get("CPU", 0))) for node in fitting)
            # A process ends with one call, so that a measurement has one of its own.
            options: dict[str, Any] = {"num_cpus": cpus, "max_calls": 1} if alone else {"num_cpus": asked.cpus or 1}
            options |= {"memory": asked.bytes} if asked.bytes else {}
            return options | ({"num_gpus": 1, "resources": {word: _A_LITTLE}} if word else {})
        raise NoSuchMachine(
            f"{asked} is asked for, and no machine of the cluster has it. Of a GPU that Ray does not know by its name, say it: "
            f"ray start --resources '{{\"{_CAPABILITY}{asked.gpu or '8.9'}\": 1}}'."
        )


def _spelled(capability: str) -> list[str]:
    """Names of Ray's resources that tell of a compute capability: the user's own, and those of GPUs."""
    return [f"{_CAPABILITY}{capability}", *(f"accelerator_type:{name}" for name in _GPUS.get(capability, ()))]


def _has(node: Mapping[str, float], asked: Resources, word: str) -> bool:
    enough = node.get("CPU", 0) >= (asked.cpus or 0) and node.get("memory", 0) >= asked.bytes
    return enough and (not word or (word in node and node.get("GPU", 0) >= 1))

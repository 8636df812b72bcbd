"""What a point of a sweep gave, and the folder that keeps it: one file each, there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

import numpy as np

from engines.disk import require_folder, writing
from engines.errors import BundleError
from engines.strict import Frozen
from exporter.sweep.quantities import COST

if TYPE_CHECKING:
    from exporter.sweep.remote import RemoteFolder

_LIMIT = 64 * 2**20


class BuildFacts(Frozen):
    """What a bundle is.

    Attributes:
        seconds: that building it took here, with what other points had left in the store.
        whole_seconds: that all its stages took when they were made, which is a build from nothing.
        size: bytes of its files.
        parameters: of its networks.
        multiply_adds: of one call of each part, by part, with every branch of guidance; empty where a pass chooses the sizes.

    """

    seconds: float
    whole_seconds: float
    size: int
    parameters: int
    multiply_adds: dict[str, int]


class Measured(Frozen):
    """What drawing with a bundle gave.

    Attributes:
        seconds: of every timed picture, from prompt to PNG.
        base_seconds: of the base's in the same rounds, just before or after.
        memory: peak of a fresh process that draws one picture, in bytes.
        evaluations: denoiser calls of a picture, of either kind; the mean over the pictures where samplers choose.
        multiply_adds: of a picture; None where the bundle's are not known.
        scores: score → its value of every picture.
        pictures: files of those that are shown, below the folder of pictures.
        notes: what is to be known of the scores, a sentence each.
        energy: of a picture, in joules, with all that the machine used meanwhile; None where nothing tells.

    """

    seconds: tuple[float, ...]
    base_seconds: tuple[float, ...]
    memory: int
    evaluations: float
    multiply_adds: float | None
    scores: dict[str, tuple[float, ...]]
    pictures: tuple[str, ...]
    notes: tuple[str, ...] = ()
    energy: float | None = None


class PointResult(Frozen):
    """What one point gave.

    Attributes:
        plan: digest of all that its build would do; another one tells that weights, code or libraries are others now.
        task: digest of what is measured, and of the base that it is measured against.
        failed: where it failed; empty where it did not.
        failure: why, in sentences.
        lasting: whether it would fail again; what is missing may be installed, and memory free, another time.
        build: None where it failed before.
        measured: as build.
        price: of an hour of the machine, as the sweep's file says now; None where it does not.

    """

    plan: str
    task: str
    failed: Literal["", "recipe", "build", "measure"] = ""
    failure: str = ""
    lasting: bool = True
    build: BuildFacts | None = None
    measured: Measured | None = None
    price: float | None = None

    def value(self, quantity: str) -> float | None:
        """The value of a column; None where it was not measured."""
        found: float | None = None
        if self.build:
            bundle = {"size": self.build.size, "parameters": self.build.parameters, "build_time": self.build.whole_seconds}
            found = bundle.get(quantity)
        if self.measured and found is None:
            own = self.measured
            if quantity in own.scores:
                return float(np.mean(own.scores[quantity]))
            latency = float(np.median(own.seconds))
            found = {
                "latency": latency,
                "speedup": float(np.median(np.divide(own.base_seconds, own.seconds))),
                "memory": own.memory,
                "evaluations": own.evaluations,
                "multiply_adds": own.multiply_adds,
                "energy": own.energy,
                COST: None if self.price is None else self.price * latency * 1000 / 3600,
            }.get(quantity)
        return found


class ResultFolder:
    """A sweep's output folder.

    Attributes:
        root: the folder; the report lies in it.
        pictures: of every point that are shown, and all of the base, which others are compared with.
        bundles: those at work; they go when their points are measured.

    """

    def __init__(self, root: Path, remote: RemoteFolder | None = None) -> None:
        """Make the folder; what is finished is sent to a `remote` one as well."""
        self._remote = remote
        self.root, self.pictures, self.bundles = root, root / "pictures", root / "bundles"
        self._points = root / "points"
        for folder in (root, self._points, self.pictures, self.bundles):
            require_folder(folder)

    def read(self, digest: str) -> PointResult | None:
        """The result of a point; None where there is none, or one that this program cannot read."""
        file = self._points / f"{digest}.json"
        if not file.is_file():
            return None
        try:
            return PointResult.read(file, _LIMIT)
        except BundleError:
            return None  # of another version, or damaged: the point is measured again

    def write(self, digest: str, result: PointResult) -> None:
        """Keep a result: on the disk, or not there."""
        final = self._points / f"{digest}.json"
        partial = final.with_suffix(f".{uuid4().hex[:8]}.partial")
        with writing(self._points, f"writing {final}"):
            try:
                with partial.open("w", encoding="utf-8") as file:
                    file.write(result.model_dump_json(indent=1) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                partial.replace(final)
            finally:
                partial.unlink(missing_ok=True)
        if self._remote:
            self._remote.send()

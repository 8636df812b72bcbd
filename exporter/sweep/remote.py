"""A sweep's folder in an object store, or anywhere else that fsspec reads by a URL: what is finished is kept there."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self

from engines.disk import require_folder
from exporter.cluster.remote_files import opened, saying
from exporter.stages.store import default_root

#: What of a sweep's folder is kept: a point's result, the pictures that it shows, all of the base's, and the report.
_KEPT = ("points/*.json", "pictures/*.webp", "pictures/reference/*.png", "*.*")


class RemoteFolder:
    """A folder behind a URL, and one of this machine in which a sweep works; the first is what lasts.

    Attributes:
        url: as the user named it.
        local: the folder to work in. A later sweep into the same URL finds it again, here or on another machine.

    """

    def __init__(self, url: str, system: Any, place: str) -> None:  # noqa: ANN401 - fsspec's
        self.url, self._system, self._place = url.rstrip("/"), system, place
        self.local = default_root() / "sweeps" / hashlib.sha256(self.url.encode()).hexdigest()[:16]
        #: File → its size and time when both sides had the same: what was measured again has its old name.
        self._same: dict[Path, tuple[int, int]] = {}

    @classmethod
    def of(cls, output: str) -> Self | None:
        """The folder of a URL; None where `output` is a path.

        Raises:
            MissingDependency: the URL's kind needs a library that is not installed.
            UnsupportedError: there is no such kind.

        """
        return cls(output, *opened(output, "s3://bucket/sweep")) if "://" in output else None

    def fetch(self) -> None:
        """Bring what is there and not here; of what is on both sides, its own.

        Raises:
            MachineError: it cannot be read.

        """
        require_folder(self.local)
        with self._saying("reading"):
            self._system.makedirs(self._place, exist_ok=True)
            for file in self._system.find(self._place):
                name = file.removeprefix(self._place).strip("/")
                here = self.local / name
                if not _is_kept(name):
                    continue
                here.parent.mkdir(parents=True, exist_ok=True)
                self._system.get_file(file, str(here))
                self._same[here] = _stamp(here)

    def send(self) -> None:
        """Bring there what is here and new: pictures before the results that name them, so that a result there is whole.

        Raises:
            MachineError: it cannot be written; what is here stays, and goes with the next that is sent.

        """
        files = [file for pattern in reversed(_KEPT[:3]) for file in sorted(self.local.glob(pattern))]
        self._send([file for file in files if self._same.get(file) != _stamp(file)])

    def send_report(self) -> str:
        """Bring the report there, in place of one before; its address.

        Raises:
            MachineError: as `send`.

        """
        self._send([file for file in self.local.glob(_KEPT[3]) if file.is_file()])
        return f"{self.url}/index.html"

    def _send(self, files: list[Path]) -> None:
        with self._saying("writing"):
            for file in files:
                there, stamp = f"{self._place}/{file.relative_to(self.local).as_posix()}", _stamp(file)
                self._system.makedirs(there.rpartition("/")[0], exist_ok=True)
                self._system.put_file(str(file), there)
                self._same[file] = stamp

    def _saying(self, doing: str) -> AbstractContextManager[None]:
        return saying(f"{doing} {self.url}", f"What was finished lies at {self.local}, too.")


def _is_kept(name: str) -> bool:
    """Whether a store's key is one of ours: as deep as a pattern, and nowhere up, since a key may be anything."""
    steps = name.split("/")
    return ".." not in steps and any(len(steps) == pattern.count("/") + 1 and Path(name).match(pattern) for pattern in _KEPT)


def _stamp(file: Path) -> tuple[int, int]:
    told = file.stat()
    return told.st_size, told.st_mtime_ns

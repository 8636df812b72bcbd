"""A folder behind a URL through which machines hand each other files that do not see the same paths."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from exporter.cluster.remote_files import opened, saying

_REMEDY = "Every machine of the cluster must be able to read and write there."


class Exchange:
    """The folder; what is sent is named by its place in it.

    Args:
        url: of fsspec, such as `s3://bucket/build`.

    Raises:
        MissingDependency, UnsupportedError: as `remote_files.opened`.

    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._system: Any
        self._system, self._root = opened(url, "s3://bucket/build")

    def send(self, files: Iterable[Path], place: str) -> tuple[str, ...]:
        """Bring files there; their places.

        Raises:
            MachineError: it cannot be written.

        """
        found = list[str]()
        with saying(f"writing {self.url}", _REMEDY):
            self._system.makedirs(f"{self._root}/{place}", exist_ok=True)
            for file in files:
                self._system.put_file(str(file), f"{self._root}/{place}/{file.name}")
                found.append(f"{place}/{file.name}")
        return tuple(found)

    def fetch(self, places: Sequence[str], folder: Path) -> tuple[Path, ...]:
        """Bring files from there into a folder.

        Raises:
            MachineError: it cannot be read.

        """
        found = list[Path]()
        with saying(f"reading {self.url}", _REMEDY):
            for place in places:
                found.append(folder / place.rpartition("/")[2])
                self._system.get_file(f"{self._root}/{place}", str(found[-1]))
        return tuple(found)

    def remove(self, place: str) -> None:
        """Remove all that was sent below a place.

        Raises:
            MachineError: it cannot be removed.

        """
        with saying(f"removing {self.url}/{place}", _REMEDY):
            if self._system.exists(f"{self._root}/{place}"):
                self._system.rm(f"{self._root}/{place}", recursive=True)

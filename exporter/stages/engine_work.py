"""An engine's build as plain data, for whatever machine does it: it needs the vendor's library, and no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from engines.bundle import place

if TYPE_CHECKING:
    from engines.backends import Backend
    from engines.signature import Signature


@dataclass(frozen=True)
class EngineWork:
    """What a backend builds of.

    Attributes:
        backend: its options.
        files: the graph, and then the weights that it reads, which may lie in other folders.
        signature: the contract of what is built.

    """

    backend: Backend
    files: tuple[Path, ...]
    signature: Signature

    @property
    def bytes(self) -> int:
        """Size of graph and weights."""
        return sum(file.stat().st_size for file in self.files)

    def build(self, folder: Path) -> None:
        """Build into an empty folder, which stays so where the backend runs the graph itself.

        Raises:
            MissingDependency, UnsupportedError: as the backend says.

        """
        graph, *weights = self.files
        if all(file.parent == graph.parent for file in weights):
            self.backend.build(graph, self.signature, folder)
            return
        with TemporaryDirectory(dir=folder) as work:
            self.backend.build(_beside(graph, weights, Path(work)), self.signature, folder)


def _beside(graph: Path, weights: Iterable[Path], folder: Path) -> Path:
    """The graph in a folder for the time being, with the weights that it reads."""
    for file in (graph, *weights):
        place(file, folder / file.name)
    return folder / graph.name

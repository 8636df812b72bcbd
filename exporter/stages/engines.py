"""Engines: what a backend builds of a graph, for a part or for a whole pipeline."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from engines.bundle import place
from exporter.stages.stage import Results, Stage

if TYPE_CHECKING:
    from engines.backends import Backend
    from exporter.families import Family
    from exporter.stages.export import GraphFiles


@dataclass(frozen=True)
class BuiltEngine:
    """What a backend built."""

    folder: Path

    @property
    def files(self) -> list[Path]:
        """Empty where the backend runs the graph itself."""
        return sorted(self.folder.iterdir())


def built(
    name: str,
    target: str,
    backend: Backend,
    graph: Stage[GraphFiles],
    family: Family,
    *,
    verb: str = "engine",
    weights: Stage[GraphFiles] | None = None,
) -> Stage[BuiltEngine]:
    """Build an engine of a part's graph; `weights` is another graph whose weights it reads, where it does."""
    make = partial(_build, name=name, backend=backend, graph=graph, family=family, weights=weights)
    return Stage.keyed(
        verb, f"{name}, {target}", make, BuiltEngine, options=backend.model_dump(mode="json"),
        inputs={"export": graph, **({"weights": weights} if weights else {})},
        makers=(type(family), type(backend)), versions={target: backend.version},
    )  # fmt: skip


def _build(
    folder: Path,
    results: Results,
    name: str,
    backend: Backend,
    graph: Stage[GraphFiles],
    family: Family,
    weights: Stage[GraphFiles] | None,
) -> None:
    gc.collect()  # the exported network is a knot of references, as large as the memory that a builder may want
    signature = results[graph].signature(family.signature(name))
    if weights is None:
        backend.build(results[graph].file, signature, folder)
        return
    beside(folder, results[graph].file, results[weights].weights, lambda file: backend.build(file, signature, folder))


def beside(folder: Path, graph: Path, weights: Iterable[Path], build: Callable[[Path], object]) -> None:
    """Build of a graph that lies beside the weights which it reads, in a folder for the time being."""
    with TemporaryDirectory(dir=folder) as work:
        for file in (graph, *weights):
            place(file, Path(work) / file.name)
        build(Path(work) / graph.name)

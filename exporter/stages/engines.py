"""Engines: what a backend builds of a graph, for a part or for a whole pipeline."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

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
    name: str, target: str, backend: Backend, graph: Stage[GraphFiles], family: Family, *, verb: str = "engine"
) -> Stage[BuiltEngine]:
    """Build an engine of a part's graph."""
    make = partial(_build, name=name, backend=backend, graph=graph, family=family)
    return Stage.keyed(
        verb, f"{name}, {target}", make, BuiltEngine, options=backend.model_dump(mode="json"), inputs={"export": graph},
        makers=(type(family), type(backend)), versions={target: backend.version},
    )  # fmt: skip


def _build(folder: Path, results: Results, name: str, backend: Backend, graph: Stage[GraphFiles], family: Family) -> None:
    gc.collect()  # the exported network is a knot of references, as large as the memory that a builder may want
    backend.build(results[graph].file, results[graph].signature(family.signature(name)), folder)

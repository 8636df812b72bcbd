"""Engines: what a backend builds of a graph, for a part or for a whole pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.bundle import place
from exporter.stages.engine_work import EngineWork
from exporter.stages.memory import release
from exporter.stages.stage import Elsewhere, Results, Stage

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
    work = partial(_work, name=name, graph=graph, family=family, weights=weights)
    inputs = {"export": graph, **({"weights": weights} if weights else {})}
    return made(verb, name, target, backend, work, inputs=inputs, makers=(type(family),))


def made(
    verb: str,
    name: str,
    target: str,
    backend: Backend,
    work: Callable[..., EngineWork],
    *,
    inputs: Mapping[str, Stage[Any]],
    makers: Iterable[object],
) -> Stage[BuiltEngine]:
    """Build an engine, or where the library builds for the GPU that it finds one for each that is asked for, and gather them.

    Args:
        verb: of the stage.
        name: the part's or the pipeline's.
        target: the backend's name.
        backend: its options.
        work: what it builds of; called with results and options, once the inputs are made.
        inputs: as of a stage.
        makers: as of a stage.

    """
    if not backend.each:
        return _one(verb, f"{name}, {target}", target, backend, work, "", inputs, makers)
    ones = {
        gpu: _one(verb, f"{name}, {target} {gpu}", target, each, work, gpu, inputs, makers) for gpu, each in backend.each.items()
    }
    gather = partial(_gather, engines=tuple(ones.values()))
    return Stage.keyed(verb, f"{name}, {target}", gather, BuiltEngine, options={}, inputs=ones)


def each(engine: Stage[BuiltEngine]) -> Iterator[Stage[BuiltEngine]]:
    """The engines that one is gathered of, where it is, and then itself."""
    yield from (need for need in engine.needs if need.verb == engine.verb)
    yield engine


def _one(
    verb: str,
    subject: str,
    target: str,
    backend: Backend,
    work: Callable[..., EngineWork],
    gpu: str,
    inputs: Mapping[str, Stage[Any]],
    makers: Iterable[object],
) -> Stage[BuiltEngine]:
    own = partial(work, backend=backend)
    # Nothing is built of a graph that is run as it is, and so there is nothing to build elsewhere.
    elsewhere = None if backend.runs_onnx else Elsewhere(own, gpu)
    return Stage.keyed(
        verb, subject, partial(_build, work=own), BuiltEngine, options=backend.model_dump(mode="json"), inputs=inputs,
        makers=(*makers, type(backend)), versions={target: backend.version}, elsewhere=elsewhere,
    )  # fmt: skip


def _build(folder: Path, results: Results, work: Callable[[Results], EngineWork]) -> None:
    release()
    work(results).build(folder)


def _work(
    results: Results,
    name: str,
    graph: Stage[GraphFiles],
    family: Family,
    weights: Stage[GraphFiles] | None,
    backend: Backend,
) -> EngineWork:
    own = results[graph]
    files = (own.file, *(own.weights if weights is None else results[weights].weights))
    return EngineWork(backend, files, own.signature(family.signature(name)))


def _gather(folder: Path, results: Results, engines: Iterable[Stage[BuiltEngine]]) -> None:
    for engine in engines:
        for file in results[engine].files:
            place(file, folder / file.name)

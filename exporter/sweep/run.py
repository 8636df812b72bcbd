"""The sweep itself: every point is built and measured once, whatever happened before; a failure is a result with its reason."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from engines.errors import MachineError, MissingDependency, ParityError, T2IError, UnsupportedError
from exporter import scores
from exporter.cluster.runner import NoSuchMachine, Runner, WorkerDied
from exporter.stages.store import Store
from exporter.sweep.build_point import BuildTask, build_point
from exporter.sweep.measure_point import MeasureTask, measure_point
from exporter.sweep.points import Combinations, Point, count, digest, plan_digest, points
from exporter.sweep.remote import RemoteFolder
from exporter.sweep.result import BuildFacts, PointResult, ResultFolder
from exporter.sweep.search import PointSearch
from exporter.sweep.spec import SweepFile

Say = Callable[[str], None]
#: Raised when what a result means changes, so that older ones are measured again.
_FORMAT = 1


@dataclass(frozen=True)
class SweptPoint:
    """A point and what it gave."""

    point: Point
    result: PointResult


def sweep(
    asked: SweepFile,
    out: Path,
    runner: Runner,
    store: Store,
    say: Say = lambda _: None,
    *,
    many: bool = False,
    remote: RemoteFolder | None = None,
) -> tuple[SweptPoint, ...]:
    """Build and measure every point; what `out` holds already, of the same plans and measures, is not done again.

    Args:
        asked: the sweep.
        out: folder of results.
        runner: who does the work.
        store: whose folder the builds share.
        say: told in a line what was done.
        many: whether it is meant that there are very many points.
        remote: where what is finished is kept besides; `out` is then its local folder.

    Returns:
        Every point, the base first.

    Raises:
        RecipeError, UnsupportedError: the sweep makes no sense, or its base cannot be had: there is nothing to compare with.
        MachineError: a disk is full or cannot be written; what was finished is kept.

    """
    made = Combinations(asked)
    found = None if asked.search else points(asked, many=many)
    chooser = PointSearch(asked, asked.search, made) if asked.search else None
    folder = ResultFolder(out.resolve(), remote)  # a worker's own folder may be another
    with store.turn(out):
        if remote:
            remote.fetch()
        work = _Work(asked, folder, runner, store, say, made.base)
        swept = work.searched(chooser, asked.search.points) if chooser and asked.search else work.all(found or ())
    return tuple(SweptPoint(point, work.result(point)) for point in swept)


class _Work:
    """One run over the points."""

    def __init__(self, asked: SweepFile, folder: ResultFolder, runner: Runner, store: Store, say: Say, base: Point) -> None:
        self._asked, self._folder, self._runner, self._store, self._say = asked, folder, runner, store, say
        self._base = base
        self._plans = {base.bundle: plan_digest(base)}
        measures = asked.measures.model_dump(mode="json")
        named = [score for each in asked.measures.scores for score in each.items()]
        files = [judged for name, options in named if (judged := scores.digest(name, options, asked.root))]
        reference = [base.bundle, self._plans[base.bundle]]
        self._task = digest(
            {"format": _FORMAT, "measures": measures, "prompts": asked.prompts, "files": files, "base": reference}
        )
        self._results: dict[str, PointResult] = {}
        self._done, self._total, self._ended = 0, 0, False

    def result(self, point: Point) -> PointResult:
        """The result of a point that was worked on, or that was there."""
        return self._results[point.digest]

    def all(self, points: Sequence[Point]) -> Sequence[Point]:
        """Work on what is not there yet."""
        left = self._left(points)
        self._say(f"{len(points)} points; {len(points) - len(left)} are measured already")
        self._total = len(left)
        self._on(left)
        shutil.rmtree(self._folder.bundles, ignore_errors=True)
        return points

    def searched(self, chooser: PointSearch, most: int) -> Sequence[Point]:
        """Work on the points that are chosen, as many at once as the runner takes, until there are so many."""
        self._total = most + 1
        self._say(f"{most} of {count(self._asked):,} points are tried, each chosen by what the earlier ones gave")
        found = [self._base]
        self._chosen(found, chooser)
        while chosen := chooser.ask(min(self._runner.width, most + 1 - len(found))):
            self._chosen(chosen, chooser)
            found += chosen
        shutil.rmtree(self._folder.bundles, ignore_errors=True)
        return found

    def _chosen(self, points: Sequence[Point], chooser: PointSearch) -> None:
        left = self._left(points)
        self._done += len(points) - len(left)  # which an earlier run measured
        self._on(left)
        for point in points:
            chooser.tell(point, self.result(point))

    def _left(self, points: Sequence[Point]) -> list[Point]:
        """Those of which no result holds any more, each once."""
        for point in points:
            if point.bundle not in self._plans:
                self._plans[point.bundle] = plan_digest(point)
            if (kept := self._folder.read(point.digest)) and self._holds(point, kept):
                self._results[point.digest] = self._priced(kept)
        return list({point.digest: point for point in points if point.digest not in self._results}.values())

    def _on(self, points: Sequence[Point]) -> None:
        """Build and measure points, those of one bundle together."""
        if not points:
            return
        base_built = self._base_built
        if self._base.digest not in self._results:
            self._finish(self._base, self._measure(self._base, base_built))
            if self.result(self._base).failed:
                raise UnsupportedError(f"the base cannot be measured:\n{self.result(self._base).failure}")
        groups: dict[str, list[Point]] = {}
        for point in points:
            if point.digest != self._base.digest:
                groups.setdefault(point.bundle, []).append(point)
        threads = ThreadPoolExecutor(self._runner.width)
        try:
            for done in as_completed([threads.submit(self._group, group, base_built) for group in groups.values()]):
                done.result()
        finally:
            threads.shutdown(cancel_futures=True)

    @cached_property
    def _base_built(self) -> BuildFacts:
        """The base's bundle, which the others are raced with: it lies there until the sweep ends."""
        built = self._build(self._base)
        if isinstance(built, PointResult):
            raise UnsupportedError(f"the base cannot be built, so there is nothing to compare with:\n{built.failure}")
        return built

    def _holds(self, point: Point, kept: PointResult) -> bool:
        """Whether a result is of the same build and the same measures."""
        return kept.lasting and (kept.plan, kept.task) == (self._plans[point.bundle], self._task)

    def _group(self, group: Sequence[Point], base_built: BuildFacts) -> None:
        """Points of one bundle, which goes when they are measured."""
        if self._ended:  # by another group, a moment ago
            return
        built = base_built if group[0].bundle == self._base.bundle else self._build(group[0])
        for point in group:
            self._finish(point, built if isinstance(built, PointResult) else self._measure(point, built))
        if group[0].bundle != self._base.bundle:
            shutil.rmtree(self._place(group[0]), ignore_errors=True)

    def _place(self, point: Point) -> Path:
        return self._folder.bundles / point.bundle

    def _build(self, point: Point) -> BuildFacts | PointResult:
        """Build a point's bundle; a result is its failure."""
        if point.recipe is None:
            return self._failed(point, "recipe", UnsupportedError(point.problem))
        task = BuildTask(self._asked.base.resolve(), point.assignments, self._place(point), self._store.root)
        future = self._runner.run(build_point, task, asked=point.resources)
        return self._failed(point, "build", error) if (error := future.exception()) else future.result()

    def _measure(self, point: Point, built: BuildFacts) -> PointResult:
        task = MeasureTask(
            bundle=self._place(point),
            base=self._place(self._base),
            run=point.run,
            multiply_adds=built.multiply_adds,
            measures=self._asked.measures,
            prompts=self._asked.prompts,
            root=self._asked.root.resolve(),
            pictures=self._folder.pictures,
            name=point.digest,
            is_base=point is self._base,
        )
        future = self._runner.run(measure_point, task, alone=True, asked=point.resources)
        if error := future.exception():
            return self._failed(point, "measure", error, built)
        return PointResult(plan=self._plans[point.bundle], task=self._task, build=built, measured=future.result())

    def _failed(
        self, point: Point, where: Literal["recipe", "build", "measure"], error: BaseException, built: BuildFacts | None = None
    ) -> PointResult:
        """A failure as a result.

        Raises:
            MachineError: a full disk ends the sweep, since every later point would fail of it.

        """
        if isinstance(error, MachineError):
            self._ended = True
            raise error
        known = isinstance(error, T2IError | WorkerDied)
        why = str(error) if known else f"a fault of this program: {type(error).__name__}: {error}\n{error.__cause__ or ''}"
        if isinstance(error, ParityError):  # a table, and after it the sentence, which rows show first
            why = "\n\n".join(reversed(why.rsplit("\n\n", 1)))
        lasting = not isinstance(error, MissingDependency | WorkerDied | NoSuchMachine)
        plan = self._plans[point.bundle]
        return PointResult(plan=plan, task=self._task, failed=where, failure=why, lasting=lasting, build=built)

    def _finish(self, point: Point, result: PointResult) -> None:
        result = self._results[point.digest] = self._priced(result)
        self._folder.write(point.digest, result)
        self._done += 1
        told = f"failed ({result.failed}): {result.failure.splitlines()[0]}" if result.failed else self._told(result)
        self._say(f"{self._done} of {self._total}  {point.name}: {told}")

    def _priced(self, result: PointResult) -> PointResult:
        """A result at today's price, of which nothing is measured again."""
        return result.model_copy(update={"price": self._asked.price})

    def _told(self, result: PointResult) -> str:
        columns = {name: self._asked.quantities[name] for name in ("latency", self._asked.quality, "size")}
        return ", ".join(f"{column.label} {column.shown(result.value(name))}" for name, column in columns.items())

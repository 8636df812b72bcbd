"""Which points of a sweep to try where there are too many: those that what was measured lets expect most of, by optuna's TPE."""

from __future__ import annotations

import math
import random
from types import ModuleType
from typing import Any

from engines.errors import MissingDependency
from exporter.sweep.points import Combinations, Point, count
from exporter.sweep.result import PointResult
from exporter.sweep.spec import SearchOptions, SweepFile

#: What is wanted of a point besides its quality.
_SPEED = "speedup"
#: Proposals in a row that were tried already, after which points are drawn at random; and draws after which none is left.
_REPEATS, _DRAWS = 10, 1000


class PointSearch:
    """Chooses points one after the other, by quality and speed under the constraints. The same results lead to the same choices.

    Raises:
        MissingDependency: optuna is not installed.

    """

    def __init__(self, asked: SweepFile, options: SearchOptions, made: Combinations) -> None:
        self._asked, self._made, self._optuna = asked, made, _optuna()
        self._dice = random.Random(options.seed)  # noqa: S311 - no secret
        directions = ["maximize" if asked.quantities[name].higher_is_better else "minimize" for name in (asked.quality, _SPEED)]
        sampler = self._optuna.samplers.TPESampler(seed=options.seed)
        self._study = self._optuna.create_study(directions=directions, sampler=sampler)
        of = self._optuna.distributions.CategoricalDistribution
        self._levels: dict[str, Any] = {axis: of(list(levels)) for axis, levels in asked.axes.items()}
        self._known: dict[str, PointResult] = {}
        self._open: dict[str, Any] = {}
        self._tried = {made.base.digest}
        self._combinations = set[tuple[str, ...]]()

    def ask(self, most: int) -> list[Point]:
        """The next points, at most so many, none of which was chosen before; none where all have been tried."""
        found: list[Point] = []
        repeats = 0
        while len(found) < most and len(self._combinations) < count(self._asked) and repeats < _REPEATS + _DRAWS:
            if repeats >= _REPEATS:
                self._study.enqueue_trial({axis: self._dice.choice(of.choices) for axis, of in self._levels.items()})
            trial = self._study.ask(self._levels)
            self._combinations.add(tuple(trial.params.values()))
            point = self._made.point(trial.params)
            if point.digest in self._tried:
                repeats += 1
                self._answer(trial, self._known.get(point.digest))
                continue
            repeats = 0
            self._tried.add(point.digest)
            self._open[point.digest] = trial
            found.append(point)
        return found

    def tell(self, point: Point, result: PointResult) -> None:
        """What a point gave that was asked for, or the base."""
        self._known[point.digest] = result
        if point.digest in self._open:
            self._answer(self._open.pop(point.digest), result)

    def _answer(self, trial: Any, result: PointResult | None) -> None:  # noqa: ANN401 - optuna's
        """Hand a trial its values; without them it counts as one that failed, and says nothing."""
        values = [None if result is None else result.value(name) for name in (self._asked.quality, _SPEED)]
        known = [value for value in values if value is not None and math.isfinite(value)]
        if result is None or len(known) < len(values):
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
            return
        for bound in self._asked.constraints:
            if (value := result.value(bound.quantity)) is not None:
                trial.set_constraint(bound.text, bound.excess(value))
        self._study.tell(trial, known)


def _optuna() -> ModuleType:
    try:
        import optuna  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingDependency("optuna", "search") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna

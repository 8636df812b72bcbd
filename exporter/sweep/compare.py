"""What the points of a sweep say together: who is on the front, what each level is worth, and which one to take."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from exporter.parity.intervals import Interval, bootstrap, difference
from exporter.sweep.points import BASE, LEFT
from exporter.sweep.quantities import Constraint, Quantity
from exporter.sweep.run import SweptPoint

#: What the front is drawn of, besides the quality.
COSTS = ("latency", "memory")


@dataclass(frozen=True)
class Effect:
    """What a level does to a quantity in another's place, with all other axes alike.

    Attributes:
        axis: whose level.
        level: the level.
        against: the level that it is compared with: the base's, if the base has one of the axis.
        quantity: what changes.
        mean: of the differences; of latencies, the geometric mean of the ratios.
        interval: 95%, over the matched pairs; None of a single pair.
        pairs: how many matched pairs there are.

    """

    axis: str
    level: str
    against: str
    quantity: str
    mean: float
    interval: Interval | None
    pairs: int


@dataclass(frozen=True)
class Choice:
    """The best point under some constraints.

    Attributes:
        constraints: all of which it keeps.
        best: of the highest quality; None where no point keeps them.
        quickest: of those whose quality cannot be told from the best's, the one that is the most times as fast as the base.
        alike: how many these are, besides the best.
        below: whether the best is surely worse than the base.

    """

    constraints: tuple[Constraint, ...]
    best: SweptPoint | None
    quickest: SweptPoint | None
    alike: int
    below: bool = False


class PointComparison:
    """The points that were measured, compared by one score.

    Attributes:
        quality: name of the score.
        measured: the points that did not fail, the base first.
        swept: those of them that have the score. Where it compares with the base, the base has none.

    """

    def __init__(self, swept: Iterable[SweptPoint], quality: str, quantities: Mapping[str, Quantity]) -> None:
        self.quality = quality
        self.measured = tuple(each for each in swept if each.result.measured)
        self.swept = tuple(each for each in self.measured if each.result.value(quality) is not None)
        self._sign = 1.0 if quantities[quality].higher_is_better else -1.0

    def front(self, costs: Sequence[str] = COSTS) -> tuple[SweptPoint, ...]:
        """Those of which no other is at least as good in quality and every cost, and better in one."""
        figures = [[self._goodness(each), *(-(each.result.value(cost) or 0.0) for cost in costs)] for each in self.swept]
        return tuple(
            each
            for each, own in zip(self.swept, figures, strict=True)
            if not any(all(a >= b for a, b in zip(other, own, strict=True)) and other != own for other in figures)
        )

    def choice(self, constraints: Sequence[Constraint]) -> Choice:
        """The best point that keeps every constraint, and the quickest that is not known to be worse."""
        allowed = [each for each in self.swept if all(bound.kept(each.result.value(bound.quantity)) for bound in constraints)]
        if not allowed:
            return Choice(tuple(constraints), None, None, 0)
        best = max(allowed, key=self._goodness)
        alike = [each for each in allowed if each is not best and not self._worse(each, best)]
        quickest = max([best, *alike], key=lambda each: each.result.value("speedup") or 0.0)
        return Choice(tuple(constraints), best, quickest, len(alike), self._below(best))

    def effects(self) -> tuple[Effect, ...]:
        """What every level does to quality and latency: means over pairs that differ in its axis alone."""
        found = []
        for axis, against in self.measured[0].point.levels.items():
            by_rest: dict[tuple[str, ...], dict[str, SweptPoint]] = {}
            for each in self.measured:
                rest = tuple(level for other, level in each.point.levels.items() if other != axis)
                by_rest.setdefault(rest, {})[each.point.levels[axis]] = each
            # The base's own level may be that of the base alone; then the next one is what others are compared with.
            met = dict.fromkeys(each.point.levels[axis] for each in self.measured)
            levels = [level for level in met if level not in {LEFT, BASE}]
            first = against if against in levels else next(iter(levels), against)
            for level in (level for level in levels if level != first):
                pairs = [(own[first], own[level]) for own in by_rest.values() if {first, level} <= own.keys()]
                found += self._effects(axis, level, first, pairs)
        return tuple(found)

    def path(self, start: SweptPoint, end: SweptPoint) -> tuple[SweptPoint, ...]:
        """From one point to another over measured ones, each step with more axes at their final level than the one before.

        Of all such ways those with the smallest steps, and of these the one that keeps the quality highest on the way.
        """
        known = {tuple(each.point.levels.items()): each for each in self.swept}
        if end is start:
            return (start,)
        changed = [axis for axis, level in start.point.levels.items() if end.point.levels[axis] != level]
        # Set of changed axes → the best way there: its steps (more is better), the qualities on it, its points.
        ways: dict[frozenset[str], tuple[int, float, tuple[SweptPoint, ...]]] = {frozenset(): (0, 0.0, (start,))}
        for size in range(1, len(changed) + 1):
            for chosen in map(frozenset, itertools.combinations(changed, size)):
                levels = {axis: (end if axis in chosen else start).point.levels[axis] for axis in start.point.levels}
                here = known.get(tuple(levels.items()))
                before = [way for others, way in ways.items() if others < chosen]
                if here is not None and before:
                    steps, quality, points = max(before, key=lambda way: way[:2])
                    ways[chosen] = steps + 1, quality + self._goodness(here), (*points, here)
        return ways[frozenset(changed)][2]

    def _goodness(self, each: SweptPoint) -> float:
        return self._sign * (each.result.value(self.quality) or 0.0)

    def _scores(self, each: SweptPoint) -> tuple[float, ...]:
        return each.result.measured.scores[self.quality] if each.result.measured else ()

    def _worse(self, each: SweptPoint, best: SweptPoint) -> bool:
        """Whether the same prompts and noise show that one is worse than the other."""
        low, high = difference(self._scores(best), self._scores(each))
        return (low if self._sign > 0 else -high) > 0

    def _below(self, each: SweptPoint) -> bool:
        """Whether a point is surely worse than the base; where a score compares with the base, nothing says so."""
        base = self.measured[0]
        return base in self.swept and each is not base and self._worse(each, base)

    def _effects(self, axis: str, level: str, against: str, pairs: Sequence[tuple[SweptPoint, SweptPoint]]) -> list[Effect]:
        found = []
        for quantity in (self.quality, "latency"):
            # Times as the base's in the same rounds tell them: a machine that is slower at one point than at another is left out.
            column = "speedup" if quantity == "latency" else quantity
            values = [(one.result.value(column), other.result.value(column)) for one, other in pairs]
            known = [(before, after) for before, after in values if before is not None and after is not None]
            if known:
                ratio = quantity == "latency"  # a mean of ratios is a mean of their logarithms
                changes = [float(np.log(before / after)) if ratio else after - before for before, after in known]
                found_of = [float(np.mean(changes)), *(bootstrap(changes) if len(changes) > 1 else ())]
                mean, *spread = np.exp(found_of).tolist() if ratio else found_of
                found.append(Effect(axis, level, against, quantity, mean, (spread[0], spread[1]) if spread else None, len(known)))
        return found

"""The best schedules of step caching for errors that are known: of every cost the one that moves the final latent least."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engines.sampler_ops import Eval
from engines.samplers.table import Table

#: Depths up to which all are tried: a UNet has three at most, a transformer as many as blocks.
_ALL = 3


def influence(table: Table) -> np.ndarray:
    """What each evaluation's answer counts in the final latent, all other answers being what they are, float64 (evaluations,)."""
    count = sum(isinstance(op, Eval) for op in table.ops)

    def final(index: int) -> float:
        answers = iter(np.eye(count, dtype=np.float32)[index])
        zero = np.zeros((1, 1, 1, 1), np.float32)
        return float(table.play(lambda *_, **__: zero + next(answers), zero.copy)[0, 0, 0, 0])

    return np.array([final(index) for index in range(count)])


def tried(depths: Sequence[int]) -> list[int]:
    """The depths that are searched: all of a few; of many the first, and each twice as deep, to half of the blocks."""
    if len(depths) <= _ALL:
        return list(depths)
    return [depth for depth in depths if (depth + 1).bit_count() == 1 and 2 * (depth + 1) <= len(depths) + 1]


def even(count: int) -> list[tuple[int, ...]]:
    """The schedules whose whole steps, counted from 0, are spread over so many steps, by their number; not all of them."""
    return [tuple(index * count // whole for index in range(whole)) for whole in range(1, count)]


def best(between: np.ndarray, costs: Sequence[int]) -> dict[int, tuple[int, ...]]:
    """The schedules that are worth their cost, by rising cost: each has less error than all that cost less.

    Args:
        between: float64 (n, n + 1), the error of the steps behind step j and before step i, shallow on what j left, at [j, i];
            infinite where they cannot be. Those of a schedule add up.
        costs: of each step where it is whole.

    Returns:
        Cost of the whole steps → these, counted from 0, the first among them; not all of them.

    """
    count, most = len(costs), sum(costs)
    # Least error of all steps before `step`, which is whole and counted in `spent`; and the whole one before it.
    least = np.full((most + 1, count), np.inf)
    before = np.zeros((most + 1, count), int)
    least[costs[0], 0] = 0.0
    for step in range(1, count):
        for spent in range(costs[step], most + 1):
            tried = least[spent - costs[step], :step] + between[:step, step]
            before[spent, step] = int(np.argmin(tried))
            least[spent, step] = tried[before[spent, step]]
    found, known = dict[int, tuple[int, ...]](), np.inf
    for spent in range(costs[0], most):
        ends = least[spent] + between[:, count]
        last = int(np.argmin(ends))
        if ends[last] < known:
            known, found[spent] = ends[last], _whole(before, costs, spent, last)
    return found


def _whole(before: np.ndarray, costs: Sequence[int], spent: int, step: int) -> tuple[int, ...]:
    """The whole steps up to one, by the whole one before each."""
    found = [step]
    while step:
        spent, step = spent - costs[step], int(before[spent, step])
        found.append(step)
    return tuple(reversed(found))

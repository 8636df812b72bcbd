"""The first value of a graph that is out of limits, and the smallest part of the graph that makes it so."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from exporter.parity.layers import Layers
from exporter.parity.metrics import PERFECT, psnr

#: Values that are looked at in one round: their arrays are in memory at once, twice, and each keeps an engine from fusing there.
_WIDTH = 16
#: Values in a part of the graph up to which each is tried for whether the part still shows the fault without it.
_SINGLY = 24

#: Names of values → how far each is from what it should be, PSNR in dB.
Measure = Callable[[Sequence[str]], Mapping[str, float]]
#: Names of the values that a part of the graph makes, the last one its end → how far that is off when the part is fed rightly.
Alone = Callable[[Sequence[str]], float]


def agreement(got: np.ndarray, want: np.ndarray) -> float:
    """PSNR in dB of one value inside a network: infinities may stand where they should, whole numbers are equal or not."""
    if got.shape != want.shape:
        return -PERFECT
    finite = np.isfinite(want)
    if not np.array_equal(got[~finite], want[~finite], equal_nan=want.dtype.kind == "f"):
        return -PERFECT
    got, want = got[finite], want[finite]
    if want.dtype.kind != "f":
        return PERFECT if np.array_equal(got, want) else -PERFECT
    if not want.size:
        return PERFECT
    # A constant has no range; then it is measured by its size.
    return psnr(got, want, float(np.ptp(want)) or float(np.abs(want).max()) or 1.0)


@dataclass(frozen=True)
class FirstFault:
    """Where a graph goes wrong.

    Attributes:
        name: the first value out of limits.
        scores: every value that was looked at → PSNR in dB, in the graph's order.
        hidden: whether the fault was gone when the values in front of this one were looked at: it is of what an engine fuses.

    """

    name: str
    scores: Mapping[str, float]
    hidden: bool


def first_off(layers: Layers, end: str, measure: Measure, floor: float) -> FirstFault:
    """Bisect the values that `end` depends on down to one that is out of limits, while all that it is made of are within them.

    Every round looks at a few of those that are left. What a good value is made of is presumed good, until the end: a norm hides
    a wrong scale, which a residual connection then carries past it.
    """
    bad, scores = end, dict[str, float]()
    good, presumed = set(layers.inputs), set[str]()
    hidden = False
    while True:
        left = [name for name in layers.above(bad) if name not in good | presumed]
        # What is left has been settled: only the values that it is made of are looked at themselves.
        last = [name for name in layers.parents(bad) if layers.is_real(name) and name not in good]
        probes = _spread(left) if left else last[:_WIDTH]
        if not probes:
            break
        seen = measure([*probes, bad])
        if seen[bad] >= floor:
            hidden = True
            break
        scores |= seen
        good |= {name for name in probes if seen[name] >= floor}
        worse = [name for name in probes if seen[name] < floor]
        if worse and not left:
            presumed = set()
        bad = worse[0] if worse else bad
        presumed |= {above for name in probes if seen[name] >= floor for above in layers.above(name)}
    order = {name: place for place, name in enumerate(layers.known)}
    return FirstFault(bad, dict(sorted(scores.items(), key=lambda item: order[item[0]])), hidden)


def _spread(names: Sequence[str]) -> list[str]:
    """Some of them, evenly."""
    if len(names) <= _WIDTH:
        return list(names)
    return [names[round((index + 1) * (len(names) - 1) / (_WIDTH + 1))] for index in range(_WIDTH)]


def smallest(layers: Layers, end: str, alone: Alone, floor: float) -> list[str]:
    """Name the values that the smallest part of the graph makes which, fed with what is right, still gets `end` wrong.

    The part grows backwards from `end` until it shows the fault; then whatever it shows it without is taken from it. Where
    nothing less does, it is all that `end` is made of.
    """
    depth, inside = 1, layers.near(end, 1)
    while alone(inside) >= floor:
        larger = layers.near(end, 2 * depth)
        if len(larger) == len(inside):
            return inside
        depth, inside = 2 * depth, larger
    low, high = depth // 2, depth  # does not show it, does
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if alone(layers.near(end, middle)) < floor else (middle, high)
    inside = layers.near(end, high)
    for name in list(inside) if len(inside) <= _SINGLY else []:
        fewer = layers.needed([each for each in inside if each != name], end) if name != end and name in inside else inside
        if len(fewer) < len(inside) and alone(fewer) < floor:
            inside = fewer
    return inside

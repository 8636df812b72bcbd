"""What a point of a sweep is measured by, in which units it is told, and what a constraint such as `latency < 2 s` allows."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from engines.plugins import did_you_mean
from exporter.cluster.sizes import BYTES, among

_SECONDS = {"": 1.0, "s": 1.0, "ms": 1e-3, "min": 60.0, "h": 3600.0}
_COUNTS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_JOULES = {"": 1.0, "J": 1.0, "kJ": 1e3, "Wh": 3600.0}
_PLAIN = {"": 1.0, "dB": 1.0, "%": 1e-2}
_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<": lambda value, bound: value < bound,
    "<=": lambda value, bound: value <= bound,
    ">": lambda value, bound: value > bound,
    ">=": lambda value, bound: value >= bound,
}
_FORM = re.compile(r"\s*([\w-]+)\s*(<=|>=|<|>)\s*([0-9.]+(?:e[+-]?\d+)?)\s*([A-Za-z%]*)\s*")


@dataclass(frozen=True)
class Quantity:
    """One column of a sweep.

    Attributes:
        label: what tables call it.
        units: suffix → how many of the base unit it is; the base unit is seconds, bytes or one.
        higher_is_better: which way is better.

    """

    label: str
    units: Mapping[str, float]
    higher_is_better: bool = False

    def shown(self, value: float | None) -> str:
        """A value with its unit, as tables print it."""
        if value is None:
            return "–"
        if self.units is _SECONDS:
            return f"{value * 1e3:.0f} ms" if value < 10 else f"{value:.1f} s"
        if self.units is BYTES:
            return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.1f} MB"
        if self.units is _COUNTS:
            size, suffix = next((pair for pair in ((1e12, " T"), (1e9, " G"), (1e6, " M")) if value >= pair[0]), (1.0, ""))
            return f"{value / size:.3g}{suffix}"
        if self.units is _JOULES:
            return f"{value:.3g} J"
        return f"{value:.4g}"


#: What every point has, whatever is scored; energy where the platform tells.
QUANTITIES: Mapping[str, Quantity] = {
    "latency": Quantity("latency", _SECONDS),
    "speedup": Quantity("times as fast as the base", _PLAIN, higher_is_better=True),
    "memory": Quantity("peak memory", BYTES),
    "size": Quantity("bundle", BYTES),
    "parameters": Quantity("parameters", _COUNTS),
    "multiply_adds": Quantity("multiply-adds a picture", _COUNTS),
    "evaluations": Quantity("denoiser calls a picture", _PLAIN),
    "build_time": Quantity("build from nothing", _SECONDS),
    "energy": Quantity("energy a picture", _JOULES),
}
#: What every point has besides, where the sweep says what an hour of the machine costs; in that currency.
COST = "cost"
COST_QUANTITY = Quantity("cost of 1,000 pictures", _PLAIN)


def score_quantity(label: str, *, higher_is_better: bool) -> Quantity:
    """The column of a score, whose unit is its own."""
    return Quantity(label, _PLAIN, higher_is_better)


@dataclass(frozen=True)
class Constraint:
    """A bound that a point keeps or breaks.

    Attributes:
        text: as the user wrote it.
        quantity: name of what is bounded.
        operator: `<`, `<=`, `>` or `>=`.
        bound: in the quantity's base unit.

    """

    text: str
    quantity: str
    operator: str
    bound: float

    @classmethod
    def parse(cls, text: str, quantities: Mapping[str, Quantity]) -> Constraint:
        """Read `latency < 2 s`.

        Raises:
            ValueError: it is no constraint, or of nothing that is measured; says what to write.

        """
        read = _FORM.fullmatch(text)
        if read is None:
            raise ValueError(f"{text!r} is no constraint; write such as 'latency < 2 s' or 'memory < 8 GB'")
        name, operator, number, unit = read.groups()
        if name not in quantities:
            raise ValueError(f"{text!r}: {name!r} is not measured{did_you_mean(name, list(quantities))}")
        units = quantities[name].units
        if unit not in units:
            raise ValueError(f"{text!r}: {name} has no unit {unit!r}{among(units)}")
        try:
            return cls(" ".join(text.split()), name, operator, float(number) * units[unit])
        except ValueError as error:
            raise ValueError(f"{text!r}: {number!r} is no number; write such as 1.5") from error

    def kept(self, value: float | None) -> bool:
        """Whether a value keeps it; one that was not measured does not."""
        return value is not None and _OPERATORS[self.operator](value, self.bound)

    def excess(self, value: float) -> float:
        """How far a value is beyond the bound, as a share of that; 0 or less where it is not."""
        beyond = value - self.bound if self.operator.startswith("<") else self.bound - value
        return beyond / (abs(self.bound) or 1.0)

"""What the processors' own counters say of energy, where the platform has them (RAPL, through Linux's powercap)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_ROOT = Path("/sys/class/powercap")
#: Domains that no other contains: a package holds its cores and its graphics, `psys` would hold the packages.
_COUNTED = ("package", "dram")

#: Counter's folder → microjoules.
EnergyReading = Mapping[Path, int]


def read(root: Path = _ROOT) -> EnergyReading:
    """The counters of all packages and their memory; empty where there are none, or this user may not read one of them."""
    found = {}
    for zone in sorted(root.glob("intel-rapl:*")):  # the kernel calls AMD's so too
        try:
            if (zone / "name").read_text(encoding="ascii").startswith(_COUNTED):
                found[zone] = int((zone / "energy_uj").read_text(encoding="ascii"))
        except OSError:  # readable by root alone on most systems
            return {}
    return found


def joules(before: EnergyReading, after: EnergyReading) -> float | None:
    """Energy between two readings, of everything that the machine did meanwhile; None without counters. They may wrap once."""
    if not before or before.keys() != after.keys():
        return None
    total = 0
    for zone, start in before.items():
        used = after[zone] - start
        total += used if used >= 0 else used + int((zone / "max_energy_range_uj").read_text(encoding="ascii"))
    return total / 1e6

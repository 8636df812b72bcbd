"""The blame table: who changed the numbers, at which stage, and by how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from engines.bundle import Verdict
from exporter.parity.metrics import PERFECT, label, labelled, shown

#: Metrics with a column of their own.
_COLUMNS = ("relative_l2", "psnr")


def worst(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The worst case of every line of the blame table, one line a backend, parts in order of first appearance."""
    lines: dict[tuple[str, str, str | None], Verdict] = {}
    parts = list(dict.fromkeys(verdict.part for verdict in verdicts))
    for verdict in sorted(verdicts, key=lambda verdict: parts.index(verdict.part)):
        line = (verdict.part, verdict.stage, verdict.backend)
        if line not in lines or _rank(verdict) < _rank(lines[line]):
            lines[line] = verdict
    return list(lines.values())


def _rank(verdict: Verdict) -> tuple[bool, float]:
    """What failed is worst, and of equals what has the least PSNR; where nothing was measured, what the verdict says."""
    return verdict.passed, verdict.values.get("psnr", PERFECT if verdict.passed else -PERFECT)


def limits(limit: Mapping[str, float]) -> str:
    """What a line is held to, as tables print it: `35 dB`, `SSIM 0.9`; empty where it is held to nothing."""
    return ", ".join(f"{bound:.0f} dB" if name == "psnr" else f"{label(name)} {bound:g}" for name, bound in limit.items())


def table(verdicts: Sequence[Verdict]) -> str:
    """Draw the blame table: one block a part, one line a stage, the worst case of each."""
    rows = [f"{'':<22}{'rel. L2':>9}{'PSNR':>11}{'limit':>10}"]
    several = len({verdict.backend for verdict in verdicts if verdict.backend}) > 1
    for part, group in groupby(worst(verdicts), key=lambda verdict: verdict.part):
        rows.append(part)
        for line in group:
            l2, db = (shown(name, line.values[name]) if name in line.values else "–" for name in _COLUMNS)
            limit = limits(line.limit) or ("–" if "psnr" in line.values else "")
            mark = "ok" if line.passed else "FAIL"
            whose = line.backend if several and line.backend and not line.note.startswith(line.backend) else ""
            others = labelled({name: value for name, value in line.values.items() if name not in _COLUMNS})
            told = "; ".join(filter(None, [whose, others, line.note, "" if line.passed else line.case]))
            rows.append(f"  {line.stage:<20}{l2:>9}{db:>11}{limit:>10}  {mark:<5}{told}".rstrip())
    return "\n".join(rows)

"""The blame table: who changed the numbers, at which stage, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from engines.bundle import Verdict
from exporter.parity.metrics import PERFECT


def worst(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The worst case of every line of the blame table, one line a backend, parts in order of first appearance."""
    lines: dict[tuple[str, str, str | None], Verdict] = {}
    parts = list(dict.fromkeys(verdict.part for verdict in verdicts))
    for verdict in sorted(verdicts, key=lambda verdict: parts.index(verdict.part)):
        line = (verdict.part, verdict.stage, verdict.backend)
        rank = (verdict.passed, PERFECT if verdict.psnr is None and verdict.passed else verdict.psnr or -PERFECT)
        if line not in lines or rank < (lines[line].passed, lines[line].psnr or -PERFECT):
            lines[line] = verdict
    return list(lines.values())


def table(verdicts: Sequence[Verdict]) -> str:
    """Draw the blame table: one block a part, one line a stage, the worst case of each."""
    rows = [f"{'':<22}{'rel. L2':>9}{'PSNR':>11}{'limit':>10}"]
    several = len({verdict.backend for verdict in verdicts if verdict.backend}) > 1
    for part, group in groupby(worst(verdicts), key=lambda verdict: verdict.part):
        rows.append(part)
        for line in group:
            l2 = "–" if line.relative_l2 is None else f"{line.relative_l2:.1e}"
            db = "–" if line.psnr is None else "exact" if line.psnr >= PERFECT else f"{line.psnr:.1f} dB"
            limit = f"{line.limit:.0f} dB" if line.limit is not None else "" if line.psnr is None else "–"
            mark = "ok" if line.passed else "FAIL"
            whose = line.backend if several and line.backend and not line.note.startswith(line.backend) else ""
            told = "; ".join(filter(None, [whose, line.note, "" if line.passed else line.case]))
            rows.append(f"  {line.stage:<20}{l2:>9}{db:>11}{limit:>10}  {mark:<5}{told}".rstrip())
    return "\n".join(rows)

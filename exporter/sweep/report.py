"""A sweep's report: one HTML file that stands by itself, and the same as JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engines.disk import writing
from exporter import machine
from exporter.parity.intervals import interval
from exporter.sweep import page
from exporter.sweep.compare import Choice, Effect, PointComparison
from exporter.sweep.points import count
from exporter.sweep.quantities import Constraint, Quantity
from exporter.sweep.run import SweptPoint
from exporter.sweep.spec import RunOptions, SweepFile

Row = Mapping[str, Any]


def write(asked: SweepFile, swept: Sequence[SweptPoint], folder: Path) -> dict[str, Any]:
    """Write `index.html`, `report.json`, `points.csv` and `report.md`; return what a terminal shows of them."""
    found = content(asked, swept)
    pictures = folder / "pictures"
    texts = {
        "report.json": json.dumps(found, indent=1, ensure_ascii=False) + "\n",
        "points.csv": _csv(found),
        "report.md": markdown(found),
        "index.html": page.html(found, pictures),
    }
    for name, text in texts.items():
        with writing(folder, f"writing {folder / name}"):
            (folder / name).write_text(text, encoding="utf-8")
    return {"points": _rows(found), "in words": found["sentences"], "report": str(folder / "index.html")}


def content(asked: SweepFile, swept: Sequence[SweptPoint]) -> dict[str, Any]:
    """Everything that was found, as JSON holds it."""
    compared = PointComparison(swept, asked.quality, asked.quantities)
    front = {id(each) for each in compared.front()}
    choices = [compared.choice(each) for each in _asked_for(asked.constraints)]
    base, columns = swept[0], _had(asked, swept)
    measured = {id(each) for each in compared.swept}
    names = {id(each): number for number, each in enumerate(swept)}
    points = []
    for each in swept:
        way = compared.path(base, each) if id(each) in measured else ()
        points.append(_point(asked, each, columns) | {"front": id(each) in front, "path": [names[id(step)] for step in way]})
    return {
        "name": asked.name,
        "base": str(asked.base),
        "quality": asked.quality,
        "axes": {axis: _met(axis, swept) for axis in asked.axes},
        "quantities": {name: {"label": each.label, "higher_is_better": each.higher_is_better} for name, each in columns.items()},
        "constraints": [{"text": each.text, "quantity": each.quantity} for each in asked.constraints],
        "sentences": [
            *(sentence(choice, asked, len(compared.swept)) for choice in choices),
            *_searched(asked, len(swept) - 1),
            *dict.fromkeys(
                note for each in compared.measured for note in (each.result.measured.notes if each.result.measured else ())
            ),
        ],
        "chosen": [names[id(choice.quickest)] for choice in choices if choice.quickest],
        "points": points,
        "effects": [_effect(each, asked.quantities) for each in compared.effects()],
        "prompts": list(asked.prompts),
        "shown": asked.measures.shown,
        "rounds": asked.measures.rounds,
        "environment": machine.environment().model_dump(mode="json"),
        "machine": machine.environment().sentence,
    }


def sentence(choice: Choice, asked: SweepFile, total: int) -> str:
    """Which point to take under some constraints, and why."""
    within = " and ".join(bound.text for bound in choice.constraints)
    told = f"Within {within}" if within else f"Of {total} points"
    best, quickest, column = choice.best, choice.quickest, asked.quantities[asked.quality]
    if best is None or quickest is None:
        return f"{told}: no point keeps {'it' if len(choice.constraints) == 1 else 'them all'}."
    found = f"{told}: {best.point.name} is best by {column.label}, {_figures(best, asked)}."
    if choice.below:
        found += " It is worse than the base, and so is every other there."
    if not choice.alike:
        return f"{found} By {len(asked.prompts)} prompts every other point there is worse. Take it."
    others = "one other point" if choice.alike == 1 else f"{choice.alike} other points"
    if quickest is best:
        return f"{found} By {len(asked.prompts)} prompts {others} cannot be told from it, and none of them is quicker. Take it."
    return (
        f"{found} By {len(asked.prompts)} prompts {others} cannot be told from it, the quickest of which is "
        f"{quickest.point.name}, {_figures(quickest, asked)}. Take that one."
    )


def _searched(asked: SweepFile, tried: int) -> list[str]:
    """What is to be known of a sweep that did not try everything."""
    if asked.search is None:
        return []
    return [
        f"{tried} of {count(asked):,} combinations were tried, each chosen by what the earlier ones gave: others may be better."
    ]


def markdown(found: Mapping[str, Any]) -> str:
    """The report as a page of text."""
    parts = [f"# {found['name']}", *found["sentences"], found["machine"] + f"; {found['rounds']} interleaved rounds."]
    parts.append(_table(_rows(found)))
    if found["effects"]:
        parts += ["## What each level is worth", _table([_effect_row(each) for each in found["effects"]])]
    if failed := [each for each in found["points"] if each["failed"]]:
        rows = [{"point": each["name"], "failed at": each["failed"], "why": each["failure"].splitlines()[0]} for each in failed]
        parts += ["## What failed", _table(rows)]
    return "\n\n".join(parts) + "\n"


def _asked_for(constraints: Sequence[Constraint]) -> list[tuple[Constraint, ...]]:
    """Each by itself, all together where there are several, and none where there is none."""
    alone = [(each,) for each in constraints]
    return [*alone, tuple(constraints)] if len(constraints) != 1 else alone


def _figures(each: SweptPoint, asked: SweepFile) -> str:
    low, high = interval(each.result.measured.scores[asked.quality]) if each.result.measured else (0.0, 0.0)
    column, value = asked.quantities[asked.quality], each.result.value(asked.quality)
    others = (asked.quantities[name].shown(each.result.value(name)) for name in ("latency", "memory", "size"))
    latency, memory, size = others
    return f"{column.shown(value)} ({column.shown(low)} to {column.shown(high)}), {latency}, {memory} of memory, {size} on disk"


def _met(axis: str, swept: Sequence[SweptPoint]) -> list[str]:
    return list(dict.fromkeys(each.point.levels[axis] for each in swept))


def _had(asked: SweepFile, swept: Sequence[SweptPoint]) -> dict[str, Quantity]:
    """The columns that some point has: not every platform tells of energy."""
    had = {name for name in asked.quantities if any(each.result.value(name) is not None for each in swept)}
    return {name: column for name, column in asked.quantities.items() if name in had or name == asked.quality}


def _point(asked: SweepFile, each: SweptPoint, columns: Mapping[str, Quantity]) -> dict[str, Any]:
    result, measured = each.result, each.result.measured
    values = {name: result.value(name) for name in columns}
    return {
        "name": each.point.name,
        "levels": dict(each.point.levels),
        "failed": result.failed,
        "failure": result.failure,
        "values": values,
        "texts": {name: columns[name].shown(value) for name, value in values.items()},
        "intervals": {name: list(interval(scores)) for name, scores in measured.scores.items()} if measured else {},
        "pictures": list(measured.pictures) if measured else [],
        "command": _command(asked, each),
        "recipe": each.point.recipe.text if each.point.recipe else "",
    }


def _command(asked: SweepFile, each: SweptPoint) -> str:
    """What builds the point, and what draws with it."""
    bundle = f"bundles/{each.point.digest}"
    sets = [word for assignment in each.point.assignments for word in ("--set", assignment)]
    built = shlex.join(["t2iexport", "build", str(asked.base), *sets, "-o", bundle])
    run = {f"--{name.replace('_', '-')}": str(value) for name, value in each.point.run if value is not None}
    words = [word for pair in run.items() for word in pair]
    drawn = shlex.join(["t2iexport", "generate", bundle, asked.prompts[0], *words])
    return f"{built}\n{drawn}" if each.point.run != RunOptions() else built


def _effect(each: Effect, quantities: Mapping[str, Quantity]) -> dict[str, Any]:
    ratio = each.quantity == "latency"
    better = each.mean < 1 if ratio else (each.mean > 0) == quantities[each.quantity].higher_is_better
    spread = each.interval
    sure = spread is not None and not spread[0] <= (1.0 if ratio else 0.0) <= spread[1]
    told = (lambda value: f"× {value:.3g}") if ratio else (lambda value: f"{value:+.3g}")
    return {
        **{name: getattr(each, name) for name in ("axis", "level", "against", "quantity", "mean", "interval", "pairs")},
        "text": told(each.mean) + (f" ({told(spread[0])} to {told(spread[1])})" if spread else ""),
        "verdict": ("better" if better else "worse") if sure else "not sure",
    }


def _effect_row(each: Row) -> dict[str, str]:
    return {
        "axis": each["axis"],
        "level": each["level"],
        "instead of": each["against"],
        "changes": each["quantity"],
        "by": each["text"],
        "pairs": str(each["pairs"]),
        "": each["verdict"],
    }


def _rows(found: Mapping[str, Any]) -> list[dict[str, str]]:
    """The points as a table, best quality first; what failed last, with where."""
    sign = -1 if found["quantities"][found["quality"]]["higher_is_better"] else 1
    first = [found["quality"], "latency", "speedup"]
    names = [*first, *(name for name in found["quantities"] if name not in first)]
    rows = sorted(found["points"], key=lambda each: _last(each["values"][found["quality"]], sign))
    return [
        {
            "point": each["name"],
            **{found["quantities"][name]["label"]: each["texts"][name] for name in names},
            "front": "yes" if each["front"] else "",
            "failed": each["failed"],
        }
        for each in rows
    ]


def _last(value: float | None, sign: int) -> float:
    return float("inf") if value is None else sign * value


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    return "\n".join([line(list(rows[0])), "|" + "---|" * len(rows[0]), *(line(list(row.values())) for row in rows)])


def _csv(found: Mapping[str, Any]) -> str:
    """One line a point, values in seconds, bytes and ones."""
    file = io.StringIO()
    axes, quantities = list(found["axes"]), list(found["quantities"])
    scores = dict.fromkeys(name for each in found["points"] for name in each["intervals"])
    columns = csv.writer(file, lineterminator="\n")
    bounds = [f"{name}_{end}" for name in scores for end in ("low", "high")]
    columns.writerow(["point", *axes, *quantities, *bounds, "front", "failed", "failure"])
    for each in found["points"]:
        levels, values = [each["levels"][axis] for axis in axes], [each["values"][name] for name in quantities]
        ends = [bound for name in scores for bound in each["intervals"].get(name, ("", ""))]
        columns.writerow([each["name"], *levels, *values, *ends, each["front"], each["failed"], each["failure"]])
    return file.getvalue()

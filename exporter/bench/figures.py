"""How a benchmark is told: tables with ratios first, JSON with every figure, and a picture of where the time goes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from engines.disk import writing
from engines.errors import MissingDependency
from exporter.bench.operators import PartOperators
from exporter.bench.run import WARM_UP, BenchReport, Timing
from exporter.parity.metrics import PERFECT

_INK, _PAPER = "#1f2933", "#ffffff"
#: One colour a stage, apart in lightness too.
_COLOURS = {
    "text": "#c9a227",
    "denoiser": "#1d4e89",
    "sampler": "#7fb2d9",
    "decoder": "#a23b2a",
    "image": "#e59b8b",
    "other": "#b8bec6",
}
_SPARE = "#4c956c"
#: Share of a network's time from which on an operator has a row of its own.
_LEAST = 0.01


def tables(report: BenchReport) -> dict[str, Any]:
    """Facts and tables for `show`: ratios first, absolute times second."""
    task = report.task
    guidance = "" if task.guidance_scale is None else f", guidance {task.guidance_scale:g}"
    facts: dict[str, Any] = {
        "machine": report.environment.sentence,
        "task": f"{task.prompt!r}, {task.steps} steps, {task.width} x {task.height} px{guidance}",
        "measured": f"{report.repeats} rounds after {WARM_UP} to warm up; in every round everybody once, another one first",
    }
    if len(report.psnr) > 1:
        facts["PSNR"] = f"of the picture, 8 bits a channel, against {report.reference}, on the same noise"
    batches = list(dict.fromkeys(timing.batch for timing in report.timings))
    for batch in batches:
        facts[f"from prompt to PNG, batch {batch}"] = [_row(report, each) for each in report.timings if each.batch == batch]
    if report.cold:
        facts["a fresh process, from its start to its first picture"] = [
            {"who": name, "seconds": f"{found.seconds:.2f}", "peak MB": f"{found.peak / 1e6:.0f}"}
            for name, found in report.cold.items()
        ]
    first = [each for each in report.timings if each.batch == batches[0]]
    for timing in first:
        title = f"where the time of {timing.contestant} goes" + (f", batch {timing.batch}" if len(batches) > 1 else "")
        facts[title] = [_stage(timing, stage) for stage in timing.stages if any(timing.stages[stage])]
    return facts | {_title(part): _operators(part) for part in report.operators}


def _row(report: BenchReport, timing: Timing) -> dict[str, str]:
    one = len(report.psnr) == 1
    likeness = report.psnr[timing.contestant]
    exact = timing.contestant == report.reference and not one
    return {
        "who": timing.contestant,
        "runs on": timing.runs_on,
        "times as long": "" if one else f"{report.ratio(timing):.2f}",
        "PSNR dB": "" if one else "reference" if exact else "exact" if likeness >= PERFECT else f"{likeness:.1f}",
        "p50 ms": _milliseconds(timing.percentile(50)),
        "p95 ms": _milliseconds(timing.percentile(95)),
        "pictures/s": f"{timing.rate:.3g}",
    }


def _stage(timing: Timing, stage: str) -> dict[str, str]:
    return {
        "stage": stage,
        "calls": str(timing.calls.get(stage, "")),
        "p50 ms": _milliseconds(timing.percentile(50, stage)),
        "p95 ms": _milliseconds(timing.percentile(95, stage)),
        "share": f"{timing.share(stage):.1%}",
    }


def _title(part: PartOperators) -> str:
    calls = f", which a picture calls {part.calls} times" if part.calls > 1 else ""
    return f"a call of {part.part} by {part.backend}, operator by operator{calls}"


def _operators(part: PartOperators) -> list[dict[str, str]] | str:
    """Rows of a part, the longest first; those that take next to nothing are one."""
    kinds = part.kinds()
    if not kinds:
        return "the library does not tell"
    shown = [kind for kind in kinds if kind.seconds >= _LEAST * part.seconds]
    rest = kinds[len(shown) :]
    rows = [(kind.operator, kind.kernel, kind.times, kind.seconds) for kind in shown]
    others = f"{len(rest)} other{'s' * (len(rest) > 1)}"
    rows += [(others, "", sum(kind.times for kind in rest), sum(kind.seconds for kind in rest))] if rest else []
    rows += [("all", "", sum(kind.times for kind in kinds), part.seconds)]
    return [
        {
            "operator": operator,
            "kernel": kernel,
            "times": str(times),
            "ms": _milliseconds(seconds),
            "share": f"{seconds / part.seconds:.1%}",
        }
        for operator, kernel, times, seconds in rows
    ]


def _milliseconds(seconds: float) -> str:
    """Three digits, or every digit before the point."""
    value = seconds * 1e3
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def content(report: BenchReport) -> dict[str, Any]:
    """Everything as JSON holds it: what was measured in seconds and bytes, and the figures that the tables show."""
    rows = []
    for timing in report.timings:
        whole = {"p50": timing.percentile(50), "p95": timing.percentile(95)}
        stages = {
            stage: {
                "p50": timing.percentile(50, stage),
                "p95": timing.percentile(95, stage),
                "share": timing.share(stage),
                "calls": timing.calls.get(stage),
                "seconds": list(timing.stages[stage]),
            }
            for stage in timing.stages
        }
        own = {"who": timing.contestant, "runs_on": timing.runs_on, "batch": timing.batch, "times_as_long": report.ratio(timing)}
        rows.append({**own, "seconds": whole, "pictures_per_second": timing.rate, "stages": stages})
    return {
        "environment": report.environment.model_dump(mode="json"),
        "task": report.task.model_dump(mode="json") | {"repeats": report.repeats, "warm_up": WARM_UP},
        "psnr": {"reference": report.reference, **report.psnr},
        "cold": {name: found.model_dump() for name, found in report.cold.items()},
        "timings": rows,
        "operators": [
            {"part": part.part, "backend": part.backend, "calls": part.calls, "kinds": [asdict(kind) for kind in part.kinds()]}
            for part in report.operators
        ],
    }


def require_plot() -> Any:  # noqa: ANN401 - matplotlib's module
    """Import what draws; raise MissingDependency where it is absent, before time is spent."""
    try:
        import matplotlib.figure  # noqa: PLC0415 - few ask for a picture
    except ModuleNotFoundError as error:
        raise MissingDependency("matplotlib", "plot") from error
    return matplotlib.figure


def plot(report: BenchReport, path: Path) -> None:
    """Draw the median time of every stage as stacked bars, one a contestant and batch, to a PNG, SVG or PDF."""
    figures = require_plot()
    names = list(dict.fromkeys(stage for timing in report.timings for stage in timing.stages))
    figure = figures.Figure(figsize=(9, 1.6 + 0.5 * len(report.timings)), facecolor=_PAPER, layout="constrained")
    axes = figure.add_subplot()
    several = len({timing.batch for timing in report.timings}) > 1
    labels = [f"{each.contestant}\n{each.runs_on}" + (f", batch {each.batch}" if several else "") for each in report.timings]
    left = [0.0] * len(labels)
    rows = range(len(labels))
    for name in names:
        width = [timing.percentile(50, name) * 1e3 if name in timing.stages else 0.0 for timing in report.timings]
        axes.barh(rows, width, left=left, height=0.62, label=name, color=_COLOURS.get(name, _SPARE))
        left = [before + more for before, more in zip(left, width, strict=True)]
    for row, (end, timing) in enumerate(zip(left, report.timings, strict=True)):
        axes.text(end, row, f" {_milliseconds(timing.percentile(50))} ms", va="center", color=_INK, fontsize=9)
    axes.set_yticks(rows, labels, fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, max(left) * 1.12)
    axes.set_xlabel("milliseconds from prompt to PNG, median of each stage", color=_INK)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    task = report.task
    axes.set_title(f"{task.steps} steps, {task.width} x {task.height} px", loc="left", fontsize=10, color=_INK)
    figure.legend(loc="outside lower center", ncols=len(names), frameon=False, fontsize=9)
    with writing(path, f"writing {path}"):
        figure.savefig(path, dpi=150)

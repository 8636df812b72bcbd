"""Measure samplers that choose their own steps on the demo: share of right pictures against evaluations of the denoiser.

    python -m tools.measure.adaptive bundles/demo

Every point is a sampler with its options, on the same prompts and seeds; pictures are judged as `tools.demo.score` does.
Points that the table already has for this bundle and number of prompts are kept; remove the file to measure all anew.
"""

from __future__ import annotations

import csv
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter, ScalarFormatter

from engines.pipeline import Pipeline
from exporter.bench.drawing import pixels
from exporter.parity.intervals import wilson
from tools.demo.captions import Prompt, evaluation_prompts
from tools.demo.score import score

FIXED = "predictor_corrector:corrections=0,predictor={},steps={}"
#: Label of a curve → its points, as `generate --sampler` takes them; a number is a compiled sampler of so many steps.
CURVES: dict[str, list[str]] = {
    "adaptive SDE": [f"adaptive:relative={size},absolute={size}" for size in (0.6, 0.4, 0.2, 0.1)],
    "Euler–Maruyama, equal steps": [FIXED.format("euler_maruyama", steps) for steps in (8, 12, 16, 24, 48)],
    "ancestral, equal steps": [FIXED.format("ancestral", steps) for steps in (8, 12, 16, 24)],
    "predictor–corrector, equal steps": [f"predictor_corrector:steps={steps}" for steps in (10, 16)],
    "ODE, Bogacki–Shampine 3(2)": [f"ode:relative={size},absolute={size}" for size in (0.03, 0.01, 0.003)],
    "compiled Euler": ["10", "25"],
}
BATCH = 64


def measure(pipeline: Pipeline, wish: str, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """Draw every prompt once; evaluations per picture, pictures that are right, seconds of the processor."""
    counts: list[int] = []
    chosen: dict[str, Any] = {"steps": int(wish)} if wish.isdigit() else {"sampler": wish}

    def pictures(texts: list[str], seed: int) -> np.ndarray:
        made = pipeline.generate(texts, seed=seed, **chosen)
        counts.extend(int(picture.info["evaluations"]) for picture in made)
        return pixels(made)

    before = time.process_time()
    found = score(pictures, list(prompts), batch=BATCH)
    groups = [found[group] for group in ("all-single", "two")]
    right, total = (sum(group[key] for group in groups if isinstance(group, dict)) for key in ("right", "total"))
    low, high = wilson(right, total)
    return {
        "evaluations_mean": round(statistics.fmean(counts), 2),
        "evaluations_median": statistics.median(counts),
        "evaluations_most": max(counts),
        "right": right,
        "share": round(right / total, 4),
        "low_95": round(low, 4),
        "high_95": round(high, 4),
        "cpu_seconds": round(time.process_time() - before, 1),
    }


def measured(bundle: Path, count: int, backend: str, known: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One row a point, as it is finished, or as it is known."""
    prompts = evaluation_prompts(count)
    with Pipeline.open(bundle, backend, threads=1) as pipeline:
        digest = pipeline.bundle.manifest.digest[:12]
        for curve, points in CURVES.items():
            for wish in points:
                key = {"curve": curve, "sampler": wish, "bundle": digest, "total": str(len(prompts))}
                same = [row for row in known if key.items() <= row.items()]
                yield same[0] if same else {**key, **measure(pipeline, wish, prompts)}


def read(table: Path) -> list[dict[str, Any]]:
    """The rows of a table; none where there is no table."""
    if not table.exists():
        return []
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """The curves, with 95% intervals."""
    figure = Figure(figsize=(9, 5.2), layout="constrained")
    axes = figure.subplots()
    for style, curve in zip(("D-", "o-", "s--", "^:", "v-.", "*"), dict.fromkeys(row["curve"] for row in rows), strict=False):
        points = sorted((row for row in rows if row["curve"] == curve), key=lambda row: float(row["evaluations_mean"]))
        across = [float(row["evaluations_mean"]) for row in points]
        up = np.array([float(row["share"]) for row in points])
        reach = np.abs(np.array([[float(row[key]) for row in points] for key in ("low_95", "high_95")]) - up)
        axes.errorbar(across, up, reach, fmt=style, label=curve, capsize=2, elinewidth=0.6, markersize=7)
    axes.set_xscale("log")
    ticks = [6, 8, 12, 16, 24, 32, 48, 64]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.xaxis.set_minor_formatter(ScalarFormatter())
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("evaluations of the denoiser per picture (mean)")
    axes.set_ylabel(f"pictures that show all that the prompt states, of {rows[0]['total']}")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--count", default=64, show_default=True, help="Prompts of each kind: one object, two objects.")
@click.option("--backend", default="onnxruntime", show_default=True)
@click.option("--table", type=click.Path(path_type=Path), default=Path("docs/adaptive.csv"), show_default=True)
@click.option("--picture", type=click.Path(path_type=Path), default=Path("docs/images/adaptive.png"), show_default=True)
@click.option("--draw-only", is_flag=True, help="Draw the table that is there.")
def main(bundle: Path, count: int, backend: str, table: Path, picture: Path, *, draw_only: bool) -> None:
    """Write the table, one line a point as it is finished, and the picture."""
    rows = known = read(table)
    if not draw_only:
        rows = []
        with table.open("w", newline="", encoding="utf-8") as file:
            for row in measured(bundle, count, backend, known):
                writer = csv.DictWriter(file, list(row), lineterminator="\n")
                if not rows:
                    writer.writeheader()
                writer.writerow(row)
                file.flush()
                rows.append(row)
                mean, share = float(row["evaluations_mean"]), float(row["share"])
                click.echo(f"{row['sampler']:<70}{mean:>8.1f}{share:>8.1%} {row['cpu_seconds']:>8} s")
    draw(rows).savefig(picture, dpi=130)
    click.echo(picture)


if __name__ == "__main__":
    main()

"""Measures ways to choose the ranges of int8 activations, at every step of a bundle's recorded trajectories, and draws them.

    python -m tools.measure.ranges bundles/demo --csv docs/ranges.csv --picture docs/images/ranges.png

BUNDLE is not quantized. The same layers are quantized each time, all but those that are kept by default; ranges are chosen on 32
of the recorded calls; the graph runs on ONNX Runtime without its optimisations, and is held to what the source model gave.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import click
from matplotlib.figure import Figure

from engines import plugins
from engines.bundle import Bundle
from exporter.parity.metrics import psnr
from exporter.passes.quantize import Quantize
from exporter.quantization.calibrate import CalibrationInput
from exporter.reference.recording import RecordingFolder

#: Label → the pass's options.
WAYS: Mapping[str, Mapping[str, Any]] = {
    "min–max": {"format": "int8", "ranges": "minmax"},
    "99.99%": {"format": "int8", "ranges": "percentile"},
    "step by step": {"format": "int8", "ranges": "stepwise"},
    "SmoothQuant, min–max": {"format": "int8-smoothquant", "ranges": "minmax"},
    "SmoothQuant, step by step": {"format": "int8-smoothquant", "ranges": "stepwise"},
}
_COLOURS = ("#8a94a0", "#c08a1e", "#1d4e89", "#d58a80", "#a23b2a")


class Point(NamedTuple):
    """One call: `run` is the recorded one's label, `time` the model's, `decibels` the PSNR of the output."""

    way: str
    run: str
    step: int
    time: float
    decibels: float


def measure(bundle: Path, ways: Mapping[str, Mapping[str, Any]]) -> list[Point]:
    """Quantize the denoiser in each way and play every recorded call.

    Raises:
        ClickException: the bundle's denoiser is quantized already.

    """
    opened = Bundle.open(bundle)
    ((name, entry),) = opened.manifest.with_role("denoiser").items()
    if entry.quantized:
        raise click.ClickException(f"{bundle}: {name} is quantized already; build the recipe without quantize")
    graph = opened.path(next(iter(entry.onnx.values())).files[0])
    cases = RecordingFolder(bundle / "recordings").calls(name)
    found = []
    for way, options in ways.items():
        click.echo(way, err=True)
        step = Quantize.model_validate(options)
        with TemporaryDirectory() as folder:
            work = Path(folder)
            given = CalibrationInput(name, way, "0" * 64, graph, entry.signature, cases, outputs=False, folder=work)
            step.apply(graph, step.calibrate(given), work / graph.name)
            backend = plugins.load("backends", "onnxruntime")(graph_optimization="none")
            with backend.open(sorted(work.glob(f"{graph.name}*")), entry.signature) as engine:
                for case in cases:
                    run, _, number = case.label.rpartition(", step ")
                    answer = engine(case.inputs)
                    worst = min(psnr(answer[port], wanted) for port, wanted in case.source.items())
                    time = float(case.inputs["timestep"].flat[0])
                    found.append(Point(way, run, int(number.split(" ")[0]), time, round(worst, 2)))
    return found


def table(points: Sequence[Point]) -> str:
    """Worst and mean of every way, as a Markdown table."""
    rows = ["| ranges | PSNR worst / mean |", "|---|---|"]
    for way in dict.fromkeys(point.way for point in points):
        own = [point.decibels for point in points if point.way == way]
        rows.append(f"| {way} | {min(own):.1f} / {sum(own) / len(own):.1f} dB |")
    return "\n".join(rows)


def draw(points: Sequence[Point]) -> Figure:
    """The longest run with guidance and without, a line a way, from noise on the left to the picture on the right."""
    lengths = {point.run: point.step for point in points}
    longest = [run for run, length in lengths.items() if length == max(lengths.values())]
    figure = Figure(figsize=(13, 4.6), layout="constrained")
    panels = figure.subplots(1, len(longest), sharey=True, squeeze=False)[0]
    for axes, run in zip(panels, longest, strict=True):
        for colour, way in zip(_COLOURS, dict.fromkeys(point.way for point in points), strict=False):
            own = [point for point in points if (point.way, point.run) == (way, run)]
            mean = sum(point.decibels for point in own) / len(own)
            axes.plot([p.time for p in own], [p.decibels for p in own], "o-", color=colour, markersize=3.5, linewidth=1.5,
                      label=f"{way} ({mean:.1f} dB)")  # fmt: skip
        axes.invert_xaxis()
        axes.set_title(run, loc="left", fontsize=10)
        axes.set_xlabel("time of the model: noise left, picture right", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(
            title="mean over the run", title_fontsize=8, fontsize=8, loc="lower left", framealpha=0.9, edgecolor="#d5dbe1"
        )
    panels[0].set_ylabel("PSNR of the output (dB)", fontsize=9)
    return figure


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True))
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), help="Where the numbers go.")
@click.option("--picture", type=click.Path(path_type=Path), help="Where the curves go.")
def main(bundle: Path, csv_file: Path | None, picture: Path | None) -> None:
    """Measures every way on a bundle's recorded calls, and prints the worst and the mean."""
    points = measure(bundle, WAYS)
    if csv_file:
        with csv_file.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([Point._fields, *points])
    if picture:
        draw(points).savefig(picture, dpi=110)
    click.echo(table(points))


if __name__ == "__main__":
    main()

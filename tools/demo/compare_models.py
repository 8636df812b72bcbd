"""The demo's table of models: size, speed, score and pictures side by side, from bundles and from scores.

    python -m tools.demo.compare_models bundles/demo bundles/demo-koala-700m --scores scores.jsonl \
        --table docs/models.md --sheet docs/images/models.png

Speed is measured here, from the prompt to the picture, batch 1, each bundle as it comes (its own steps, guidance and decoder),
all in every round, another one first each time. Scores are lines of `tools.demo.score --json`, of a bundle or of its recipe.
"""

from __future__ import annotations

import json
import statistics
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from engines.pipeline import Pipeline
from exporter.bench.drawing import pixels
from tools.demo.scenes import SIDE

PROMPTS = (
    "a small red circle left of a large blue square",
    "a green star on a white background",
    "a large orange triangle above a small cyan cross on black",
    "a purple ring on brown",
    "a pink star to the right of a green circle",
    "a yellow square on a brown background",
)
_WARM_UP, _SCALE, _GAP, _LABEL = 1, 2, 8, 150


@dataclass(frozen=True)
class Row:
    """One model.

    Attributes:
        name: The bundle's.
        parameters: Of the denoiser.
        megabytes: Of the engines that it runs.
        steps: Its default.
        seconds: From prompt to picture, median.
        score: A line of `tools.demo.score --json`.

    """

    name: str
    parameters: int
    megabytes: float
    steps: int
    seconds: float
    score: Mapping[str, Any]


def table(rows: Sequence[Row]) -> str:
    """Markdown; ratios are to the first row."""
    first = rows[0]
    head = [
        "model",
        "UNet",
        "files",
        "steps",
        "ms a picture",
        "times as fast",
        "single",
        "two",
        "both",
        "of the first's",
        "recipe",
    ]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in rows:
        single, two, both = (row.score[group]["share"] for group in ("all-single", "two", "all"))
        lines.append("| " + " | ".join([
            row.name,
            f"{row.parameters / 1e6:.2f} M ({row.parameters / first.parameters:.1%})",
            f"{row.megabytes:.1f} MB",
            str(row.steps),
            f"{row.seconds * 1e3:.3g}",
            f"{first.seconds / row.seconds:.2f}",
            f"{single:.1%}",
            f"{two:.1%}",
            f"{both:.1%}",
            f"{both / first.score['all']['share']:.1%}",
            f"`recipes/{row.name}.yaml`",
        ]) + " |")  # fmt: skip
    return "\n".join(lines) + "\n"


def sheet(pictures: Mapping[str, np.ndarray], prompts: Sequence[str]) -> Image.Image:
    """A row of pictures, uint8 (prompts, 64, 64, 3), for each model, under the prompts."""
    cell, top = SIDE * _SCALE, 48
    page = Image.new(
        "RGB", (_LABEL + len(prompts) * (cell + _GAP) + _GAP, top + len(pictures) * (cell + _GAP) + _GAP), (238, 238, 238)
    )
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    for column, prompt in enumerate(prompts):
        place = _LABEL + column * (cell + _GAP) + _GAP, _GAP
        pen.multiline_text(place, "\n".join(textwrap.wrap(prompt, 21)[:3]), fill=(20, 20, 20), font=font, spacing=1)
    for index, (name, row) in enumerate(pictures.items()):
        y = top + index * (cell + _GAP) + _GAP
        pen.multiline_text((_GAP, y + cell // 2 - 12), "\n".join(textwrap.wrap(name, 20)), fill=(20, 20, 20), font=font)
        for column, picture in enumerate(row):
            place = _LABEL + column * (cell + _GAP) + _GAP, y
            page.paste(Image.fromarray(picture).resize((cell, cell), Image.Resampling.NEAREST), place)
    return page


def scored(name: str, lines: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The last score of a bundle or recipe of that name."""
    found = [line for line in lines if Path(line["source"]).with_suffix("").name == name]
    if not found:
        known = ", ".join(sorted({line["source"] for line in lines})) or "none"
        raise click.ClickException(f"no score of {name}; there are those of: {known}. First: python -m tools.demo.score --json …")
    return found[-1]


def interleaved(calls: Mapping[str, Callable[[int], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each call, which gets the round's number; every round has all of them, another one first."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for number in range(_WARM_UP + rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            start = time.perf_counter()
            calls[name](number)
            if number >= _WARM_UP:
                spent[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in spent.items()}


def measure(pipelines: Mapping[str, Pipeline], rounds: int) -> dict[str, float]:
    """Median seconds from prompt to picture of each, interleaved."""

    def drawn(pipeline: Pipeline, number: int) -> object:
        return pipeline.generate(PROMPTS[number % len(PROMPTS)], seed=number)

    return interleaved({name: partial(drawn, pipeline) for name, pipeline in pipelines.items()}, rounds)


def _megabytes(pipeline: Pipeline, backend: str) -> float:
    """What has to be shipped to run on a backend."""
    manifest = pipeline.bundle.manifest
    files = set[str]()
    for name, chosen in manifest.runs()[backend].items():
        files |= set(manifest.parts[name].engines[chosen].files)
    return sum(manifest.files[file].size for file in files) / 1e6


@click.command()
@click.argument("bundles", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--scores", type=click.Path(path_type=Path, exists=True), required=True, help="Lines by tools.demo.score --json.")
@click.option("--rounds", default=7, show_default=True)
@click.option("--backend", default="onnxruntime", show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the pictures on the sheet; nothing is picked by hand.")
@click.option("--table", "table_file", type=click.Path(path_type=Path), help="Markdown; printed as well.")
@click.option("--sheet", "sheet_file", type=click.Path(path_type=Path), help="PNG.")
def main(
    *,
    bundles: tuple[Path, ...],
    scores: Path,
    rounds: int,
    backend: str,
    seed: int,
    table_file: Path | None,
    sheet_file: Path | None,
) -> None:
    """Measures and draws BUNDLES, of which the first is what the others are compared with."""
    lines = [json.loads(line) for line in scores.read_text().splitlines()]
    found = {bundle.resolve().name: scored(bundle.resolve().name, lines) for bundle in bundles}
    with ExitStack() as stack:
        pipelines = {bundle.resolve().name: stack.enter_context(Pipeline.open(bundle, backend)) for bundle in bundles}
        seconds = measure(pipelines, rounds)
        rows = []
        for name, pipeline in pipelines.items():
            manifest = pipeline.bundle.manifest
            (denoiser,) = manifest.with_role("denoiser").values()
            rows.append(
                Row(name, denoiser.parameters, _megabytes(pipeline, backend), manifest.defaults.steps, seconds[name], found[name])
            )
        if sheet_file:
            drawn = {name: pixels(pipeline.generate(list(PROMPTS), seed=seed)) for name, pipeline in pipelines.items()}
            sheet(drawn, PROMPTS).save(sheet_file, optimize=True)
    text = table(rows)
    click.echo(text)
    if table_file:
        table_file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

"""Scores and times bundles of the demo's models that are steered by pictures, whole and without their innermost blocks.

    python -m tools.demo.score_conditioned bundles/demo-edit bundles/demo-edit-7 --table edit.md

The first bundle says of which kind all are: one with a ControlNet is also scored with it switched off, on the same prompts and
noise. Pictures are drawn without torch. Times are from prompt to picture, batch 1, all bundles in every round, another one first
each time; `--against` names bundles that are timed beside them and not scored, such as the demo without a ControlNet.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from engines.pipeline import Pipeline
from tools.demo.compare_models import interleaved
from tools.demo.conditioned import Case, counted, edge_cases, edit_cases, verdict

STRENGTH = "controlnet_conditioning_scale"
_BATCH = 8


@dataclass(frozen=True)
class Row:
    """One bundle, or one way of running it.

    Attributes:
        name: The bundle's, and what is switched off.
        parameters: Of the network that is called in every step, with its ControlNet's.
        seconds: From prompt to picture, median; None where it was not timed.
        busy: Seconds of processors' time in it, median, which other work on the machine changes less.
        right: Group, and in it how many pictures are so, by name; empty where none was scored.
        total: Pictures of each group.

    """

    name: str
    parameters: int
    seconds: float | None
    busy: float | None
    right: Mapping[str, Mapping[str, int]]
    total: int


def steered(pipeline: Pipeline) -> bool:
    """Whether a bundle has a ControlNet; the others edit."""
    return STRENGTH in {scale.name for scale in pipeline.bundle.manifest.guidance.scales}


def drawn(
    pipeline: Pipeline,
    cases: Sequence[Case],
    seed: int = 0,
    steps: int | None = None,
    **more: Any,  # noqa: ANN401 - generate's own
) -> np.ndarray:
    """The pictures of cases, uint8 (N, 64, 64, 3); that of case i depends on seed + i alone.

    Args:
        pipeline: An open bundle.
        cases: What to draw.
        seed: Of the first.
        steps: Of the sampler; the bundle's default if None.
        **more: Further inputs of the bundle, by name.

    """
    found = list[np.ndarray]()
    for start in range(0, len(cases), _BATCH):
        some = cases[start : start + _BATCH]
        inputs = {"image": [Image.fromarray(case.given) for case in some], **more}
        pictures = pipeline.generate([case.text for case in some], seed=seed + start, steps=steps, inputs=inputs)
        found += [np.asarray(picture.convert("RGB")) for picture in pictures]
    return np.stack(found)


def scored(pictures: np.ndarray, cases: Sequence[Case]) -> dict[str, dict[str, int]]:
    """Per group how many pictures do what their case asks, by the names of `verdict`."""
    groups: dict[str, list[Mapping[str, bool]]] = {}
    for picture, case in zip(pictures, cases, strict=True):
        groups.setdefault(case.group, []).append(verdict(picture, case))
    return {group: counted(verdicts) for group, verdicts in groups.items()}


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    names = [(group, name) for group, counts in rows[0].right.items() for name in counts]
    words = {"single": "one object", "two": "two objects"}
    head = [
        "bundle",
        "parameters a step",
        "ms a picture",
        "ms of processors",
        *(f"{words[group]}: {name}" for group, name in names),
    ]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in rows:
        took = ["" if each is None else f"{each * 1e3:.0f}" for each in (row.seconds, row.busy)]
        counts = [f"{row.right[group][name]} / {row.total}" if row.right else "" for group, name in names]
        lines.append(f"| {' | '.join([row.name, f'{row.parameters:,}', *took, *counts])} |")
    return "\n".join(lines) + "\n"


def timed(
    pipelines: Mapping[str, Pipeline], cases: Sequence[Case], steps: int | None, rounds: int
) -> dict[str, tuple[float, float]]:
    """Median seconds from prompt to picture of each, and of processors' time in them."""
    busy: dict[str, list[float]] = {name: [] for name in pipelines}

    def draw(name: str, number: int) -> None:
        case, pipeline = cases[number % len(cases)], pipelines[name]
        inputs = {"image": Image.fromarray(case.given)} if pipeline.bundle.manifest.inputs else None
        start = time.process_time()
        pipeline.generate(case.text, seed=number, steps=steps, inputs=inputs)
        busy[name].append(time.process_time() - start)

    seconds = interleaved({name: partial(draw, name) for name in pipelines}, rounds)
    return {name: (seconds[name], statistics.median(busy[name][-rounds:])) for name in pipelines}


@click.command()
@click.argument("bundles", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--against", multiple=True, type=click.Path(path_type=Path, exists=True), help="Timed too, not scored.")
@click.option("--count", default=100, show_default=True, help="Pictures of each group.")
@click.option("--steps", type=int, help="[default: each bundle's]")
@click.option("--rounds", default=15, show_default=True, help="Pictures that are timed of each bundle; 0 times none.")
@click.option("--seed", default=0, show_default=True)
@click.option("--table", "table_file", type=click.Path(path_type=Path), help="Markdown; printed as well.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Append a line of JSON for each row.")
def main(
    *,
    bundles: tuple[Path, ...],
    against: tuple[Path, ...],
    count: int,
    steps: int | None,
    rounds: int,
    seed: int,
    table_file: Path | None,
    json_file: Path | None,
) -> None:
    """Scores and times BUNDLES, all of one kind."""
    with ExitStack() as stack:
        opened = {place.name: stack.enter_context(Pipeline.open(place)) for place in (*bundles, *against)}
        control = steered(opened[bundles[0].name])
        cases = edge_cases(count) if control else edit_cases(count)
        took = timed(opened, cases, steps, rounds) if rounds else dict.fromkeys(opened, (None, None))
        rows = list[Row]()
        for name, pipeline in opened.items():
            (denoiser,) = pipeline.bundle.manifest.with_role("denoiser").values()
            if name not in {place.name for place in bundles}:
                rows.append(Row(name, denoiser.parameters, *took[name], {}, count))
                continue
            rows.append(Row(name, denoiser.parameters, *took[name], scored(drawn(pipeline, cases, seed, steps), cases), count))
            if control and name == bundles[0].name:
                without = scored(drawn(pipeline, cases, seed, steps, **{STRENGTH: 0.0}), cases)
                rows.append(Row(f"{name}, {STRENGTH} 0", denoiser.parameters, None, None, without, count))
            click.echo(f"{rows[-1]}", err=True)
    text = table(rows)
    click.echo(text)
    if table_file:
        table_file.write_text(text, encoding="utf-8")
    if json_file:
        with json_file.open("a") as file:
            file.writelines(json.dumps(vars(row)) + "\n" for row in rows)


if __name__ == "__main__":
    main()

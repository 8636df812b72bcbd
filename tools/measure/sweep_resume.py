"""Measures how long a sweep takes of which every point is finished: to plan them again, find their results, write the report.

    python -m tools.measure.sweep_resume recipes/sweep-demo.yaml -o /tmp/report

The folder is filled by a runner that builds and measures nothing, but answers with figures and pictures in their form: what a
finished point leaves, whatever it took. Then `t2iexport sweep` is started afresh on it.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np
from PIL import Image

from exporter.cluster.resources import ANYTHING, Resources
from exporter.stages.store import Store
from exporter.sweep import run, spec
from exporter.sweep.build_point import BuildTask
from exporter.sweep.measure_point import MeasureTask
from exporter.sweep.result import BuildFacts, Measured

R = TypeVar("R")
_SIDE = 256


class Answering:
    """A runner that answers at once, as a worker would.

    Attributes:
        asked: how many tasks it was given.
        width: as of a runner.

    """

    width = 1

    def __init__(self) -> None:
        self.asked = 0

    def run(self, function: Callable[..., R], *arguments: object, alone: bool = False, asked: Resources = ANYTHING) -> Future[R]:  # noqa: ARG002 - a runner's
        """Answer a task."""
        self.asked += 1
        (task,) = arguments
        found: Future[Any] = Future()
        found.set_result(_measured(task) if isinstance(task, MeasureTask) else _built(task))
        return found

    def refuse(self, asked: Resources) -> None:
        """Whatever is asked for is here."""


def _built(task: object) -> BuildFacts:
    if isinstance(task, BuildTask):
        task.out.mkdir(parents=True, exist_ok=True)
    return BuildFacts(seconds=1.0, whole_seconds=10.0, size=40_000_000, parameters=10_000_000, multiply_adds={"unet": 10**9})


def _measured(task: MeasureTask) -> Measured:
    rng, count = np.random.default_rng(sum(map(ord, task.name))), len(task.prompts)
    names, shown = [f"{task.name}-{number}.webp" for number in range(task.measures.shown)], rng.random((8, 8, 3)) * 255
    for name in names:
        Image.fromarray(shown.astype(np.uint8)).resize((_SIDE, _SIDE)).save(task.pictures / name)
    seconds = 0.1 + 0.1 * rng.random(task.measures.rounds)
    scores = {Path(name).stem: tuple(rng.random(count)) for each in task.measures.scores for name in each}
    return Measured(
        seconds=tuple(seconds), base_seconds=tuple(2 * seconds), memory=10**9, evaluations=25, multiply_adds=10.0**11,
        scores=scores, pictures=tuple(names),
    )  # fmt: skip


def resumed(sweep: Path, folder: Path) -> tuple[float, float, str]:
    """Seconds of the clock and of a CPU that the command takes afresh, and what it printed on stderr."""
    command = [sys.executable, "-c", "from exporter.cli import main; main()", "sweep", str(sweep), "-o", str(folder)]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": os.getcwd()})  # noqa: PTH109 - our own
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise click.ClickException(done.stderr)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stderr


@click.command()
@click.argument("sweep", type=click.Path(path_type=Path, exists=True))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder of results; a fresh one.")
def main(sweep: Path, output: Path) -> None:
    """Fill OUTPUT with finished points of SWEEP, and time the run that finds them."""
    found = run.sweep(spec.load(sweep), output, Answering(), Store(), lambda _: None)
    seconds, cpu, said = resumed(sweep, output)
    click.echo(f"{len(found)} finished points: {seconds:.1f} s, {cpu:.1f} s of a CPU")
    click.echo(said.splitlines()[0] if said else "")


if __name__ == "__main__":
    main()

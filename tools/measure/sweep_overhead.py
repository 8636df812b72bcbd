"""Measures what a sweep adds to its points: the wall's time over the sum of what builds and measurements themselves took.

    python -m tools.measure.sweep_overhead sweep.yaml -o /tmp/report                 # here, one task after the other
    ray start --head --num-cpus 1; python -m tools.measure.sweep_overhead sweep.yaml -o /tmp/report --ray auto; ray stop

A task's own time begins when its function is called in the worker and ends when it returns. What is added is processes and
their imports, plans, results on disk, Ray, and the wait between two tasks. On Ray it means something only where one task runs at
a time, on one CPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import click

from exporter.stages.store import Store
from exporter.sweep import run, spec
from exporter.sweep.ray_runner import RayRunner
from exporter.sweep.runner import LocalRunner, Runner

R = TypeVar("R")


def timed(function: Callable[..., R], *arguments: object) -> tuple[float, R]:
    """What a function returns, and the seconds that it took, in whichever process this is."""
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


class Clocked:
    """A runner whose tasks are timed where they run.

    Attributes:
        seconds: of each task.
        width: the runner's.

    """

    def __init__(self, runner: Runner) -> None:
        self._runner, self.width = runner, runner.width
        self.seconds: list[float] = []

    def run(self, function: Callable[..., R], *arguments: object, alone: bool = False) -> Future[R]:
        """Run a task as the runner does."""
        done: Future[Any] = self._runner.run(timed, function, *arguments, alone=alone)
        if done.exception():
            return done
        own: Future[R] = Future()
        seconds, result = done.result()
        self.seconds.append(seconds)
        own.set_result(result)
        return own


@click.command()
@click.argument("sweep", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder of results; a fresh one.")
@click.option("--ray", "address", help="As t2iexport sweep.")
def main(sweep: Path, output: Path, address: str | None) -> None:
    """Run the sweep, and print both times and their ratio."""
    asked = spec.load(sweep)
    with RayRunner(address) if address else LocalRunner() as runner:
        clocked, start = Clocked(runner), time.perf_counter()
        points = run.sweep(asked, output, clocked, Store(), lambda line: click.echo(line, err=True))
        whole = time.perf_counter() - start
    own = sum(clocked.seconds)
    failed = sum(bool(each.result.failed) for each in points)
    click.echo(f"{len(points)} points, {failed} failed; {len(clocked.seconds)} tasks took {own:.1f} s, the sweep {whole:.1f} s")
    click.echo(f"added: {whole - own:.1f} s, {whole / own - 1:.1%}; {(whole - own) / len(clocked.seconds):.2f} s a task")


if __name__ == "__main__":
    main()

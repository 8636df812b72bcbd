"""Measures what a sweep adds to its points: the wall's time over the sum of what builds and measurements themselves took.

    python -m tools.measure.sweep_overhead sweep.yaml -o /tmp/report                 # here, one task after the other
    ray start --head --num-cpus 1; python -m tools.measure.sweep_overhead sweep.yaml -o /tmp/report --ray auto; ray stop

A task's own time begins when its function is called in the worker and ends when it returns. What is added is processes and
their imports, plans, results on disk, Ray, and the wait between two tasks. On Ray it means something only where one task runs at
a time, on one CPU.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import click

from exporter.cluster.ray_runner import RayRunner
from exporter.cluster.resources import ANYTHING, Resources
from exporter.cluster.runner import Runner
from exporter.stages.store import Store
from exporter.sweep import run, spec
from exporter.sweep.local_runner import LocalRunner

R = TypeVar("R")


def timed(function: Callable[..., R], *arguments: object) -> tuple[float, float, R]:
    """Seconds that a function took, those of a CPU with the processes that it waited for, and what it returned."""
    start, before = time.perf_counter(), _cpu()
    result = function(*arguments)
    return time.perf_counter() - start, _cpu() - before, result


def _cpu() -> float:
    """Seconds of a CPU of this process, of its children that are there, and of all that they and it waited for."""
    ticks = 0
    with suppress(OSError):  # of one that just ended, which is waited for
        lists = [each.read_text().split() for each in Path("/proc/self/task").glob("*/children")]
        for child in (child for each in lists for child in each):
            ticks += sum(map(int, Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[11:15]))
    return sum(os.times()[:4]) + ticks / os.sysconf("SC_CLK_TCK")


class Clocked:
    """A runner whose tasks are timed where they run.

    Attributes:
        seconds: of each task; so is `cpu`, of a CPU, which other work on the machine leaves as it is.
        width: the runner's.

    """

    def __init__(self, runner: Runner) -> None:
        self._runner, self.width = runner, runner.width
        self.seconds: list[float] = []
        self.cpu: list[float] = []

    def run(self, function: Callable[..., R], *arguments: object, alone: bool = False, asked: Resources = ANYTHING) -> Future[R]:
        """Run a task as the runner does."""
        done: Future[Any] = self._runner.run(timed, function, *arguments, alone=alone, asked=asked)
        if done.exception():
            return done
        own: Future[R] = Future()
        seconds, cpu, result = done.result()
        self.seconds.append(seconds)
        self.cpu.append(cpu)
        own.set_result(result)
        return own

    def refuse(self, asked: Resources) -> None:
        """As the runner does."""
        self._runner.refuse(asked)


@click.command()
@click.argument("sweep", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder of results; a fresh one.")
@click.option("--ray", "address", help="As t2iexport sweep.")
def main(sweep: Path, output: Path, address: str | None) -> None:
    """Run the sweep, and print both times and their ratio."""
    asked = spec.load(sweep)
    start, before = time.perf_counter(), _cpu()
    with RayRunner(address) if address else LocalRunner() as runner:
        clocked = Clocked(runner)
        points = run.sweep(asked, output, clocked, Store(), lambda line: click.echo(line, err=True))
    whole, cpu, own = time.perf_counter() - start, _cpu() - before, sum(clocked.seconds)
    failed = sum(bool(each.result.failed) for each in points)
    click.echo(f"{len(points)} points, {failed} failed; {len(clocked.seconds)} tasks took {own:.1f} s, the sweep {whole:.1f} s")
    click.echo(f"added: {whole - own:.1f} s, {whole / own - 1:.1%}; {(whole - own) / len(clocked.seconds):.2f} s a task")
    if address is None:  # what Ray starts is not ours to wait for
        used = sum(clocked.cpu)
        click.echo(f"of a CPU: {used:.1f} s and {cpu - used:.1f} s added, {cpu / used - 1:.1%}")


if __name__ == "__main__":
    main()

"""`python -m tools.coverage [NAME …]`: try micro models of diffusers' pipelines, and keep a row of each.

Every name of diffusers' own lists has a row in exporter/report/pipelines.json, and so has what stands beside them;
docs/coverage.md and `t2iexport list pipelines` show them. Each trial is a process of its own with a time limit, and its rows are
written at once: what was done stays done.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import datetime
from threading import Lock
from typing import Any

import click

from exporter.report import pipelines
from tools.coverage import rows
from tools.coverage.trial import FP32


def tried(trial: rows.Trial, seconds: int, threads: int, *options: str) -> dict[str, Any]:
    """Try one micro model in a process of its own; how it went, or what the process died of, or that it took too long."""
    command = [sys.executable, "-m", f"tools.coverage.{trial.module}", trial.name, *options]
    own = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False, env=own)
    except subprocess.TimeoutExpired:
        return {"state": "not built", "why": f"it took more than {seconds} s"}
    if done.returncode:
        return {"state": "failed", "why": (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1][:300]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def _chosen(names: Sequence[str], before: str, *, again: bool) -> list[rows.Trial]:
    known = rows.read()

    def waits(trial: rows.Trial) -> bool:
        own = [known[task].get(name, {}) for task, name in trial.places.items()]
        done = all(row.get("state") == "works" and row.get("measured", {}).get("fp32", "") >= before for row in own)
        return again or not done

    return [trial for trial in rows.trials() if (trial.name in names if names else waits(trial))]


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(sorted({trial.name for trial in rows.trials()})))
@click.option("--again", is_flag=True, help="Those too whose rows say that they work.")
@click.option("--before", type=click.DateTime(["%Y-%m-%d"]), help="Those too that were measured before this day.")
@click.option("--fp32", is_flag=True, help="Measure nothing in fp16: figures that rows have of it stay, with their day.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Trials that run side by side.")
@click.option("--seconds", default=900, show_default=True, help="Most that one trial may take.")
def main(names: tuple[str, ...], *, again: bool, before: datetime | None, fp32: bool, jobs: int, seconds: int) -> None:
    """Try the names, or all whose rows do not say that they work, and keep the rows."""
    chosen = _chosen(names, before.date().isoformat() if before else "", again=again)
    options = [FP32] if fp32 else []
    threads, start, one = max(1, (os.cpu_count() or 1) // jobs), time.monotonic(), Lock()

    def kept(trial: rows.Trial) -> dict[str, Any]:
        found = tried(trial, seconds, threads, *options)
        with one:
            rows.keep(trial, found)
        return found

    pool = ThreadPoolExecutor(jobs)
    try:
        waited = {pool.submit(kept, trial): trial for trial in chosen}
        for number, each in enumerate(as_completed(waited), 1):
            trial, minutes = waited[each], (time.monotonic() - start) / 60
            for task, row in trial.rows(each.result()).items():
                told = f"{trial.places[task]}, {task}: {pipelines.state(row)}"
                click.echo(f"[{number} of {len(chosen)}, {minutes:.0f} min] {told}")
    finally:
        pool.shutdown(cancel_futures=True)


if __name__ == "__main__":
    main()

"""Build architectures at full size with random weights and an empty cache, and measure time and peak memory.

`python -m tools.measure_full_size koala-700m sdxl-base` prints a table; `--json FILE` keeps one line per model.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import psutil

#: Seconds between two looks at the memory.
PACE = 0.1
SKIP = "random weights at full size, built for time and memory alone"


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Append one line of JSON per model.")
@click.option("--work", type=click.Path(path_type=Path), default=None, help="Where cache and bundle go [a temporary folder].")
def main(names: tuple[str, ...], json_file: Path | None, work: Path | None) -> None:
    """Measure `t2iexport build recipes/NAME.yaml` for architectures of the same NAME."""
    for name in names:
        result = measure(name, work)
        print(f"{'model':<14}{'seconds':>9}{'CPU s':>9}{'peak RSS':>11}{'bundle':>11}")
        times = f"{result['seconds']:>9.0f}{result['cpu_seconds']:>9.0f}"
        print(f"{name:<14}{times}{result['peak_gb']:>8.1f} GB{result['bundle_gb']:>8.2f} GB", flush=True)
        for row in result["stages"]:
            print(f"    {row['subject']:<32}{row['stage']:<10}{row['seconds']:>8.1f} s")
        if json_file:
            with json_file.open("a") as file:
                file.write(json.dumps(result) + "\n")


def measure(name: str, work: Path | None) -> dict[str, object]:
    """Build once in processes of its own.

    Returns:
        Wall-clock and processor seconds; the peak of the resident memory of all its processes together, in GB, mapped weights
        included and shared pages counted once per process; the bundle's size in GB; the stages.

    """
    with tempfile.TemporaryDirectory(dir=work) as folder:
        out, log = Path(folder) / "bundle", Path(folder) / "log"
        settings = [f"model.source={name}", "model.weights=random", "model.revision=null", f"checks.skip={SKIP}"]
        command = [str(Path(sys.executable).with_name("t2iexport")), "build", f"recipes/{name}.yaml", "--json", "-o", str(out)]
        start = time.perf_counter()
        with log.open("w") as errors:
            process = subprocess.Popen(
                [*command, *(f"--set={setting}" for setting in settings)],
                stdout=subprocess.PIPE, stderr=errors, env={**os.environ, "XDG_CACHE_HOME": folder},
            )  # fmt: skip
            peak, cpu = _watch(psutil.Process(process.pid))
        printed, _ = process.communicate()
        seconds = time.perf_counter() - start
        if process.returncode:
            raise click.ClickException(f"{name}: exit status {process.returncode}\n{log.read_text()[-2000:]}")
        size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    stages = json.loads(printed)["stages"]
    figures = {"seconds": seconds, "cpu_seconds": cpu, "peak_gb": peak / 1e9, "bundle_gb": size / 1e9}
    return {"model": name, **figures, "stages": stages}


def _watch(process: psutil.Process) -> tuple[int, float]:
    """Peak memory in bytes and processor seconds of a process and its children, until it ends."""
    peak, cpu = 0, 0.0
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        try:
            family = [process, *process.children(recursive=True)]
            peak = max(peak, sum(member.memory_info().rss for member in family))
            times = process.cpu_times()
            cpu = max(cpu, times.user + times.system + times.children_user + times.children_system)
        except psutil.NoSuchProcess:  # a child ended while it was looked at
            continue
        time.sleep(PACE)
    return peak, cpu


if __name__ == "__main__":
    main()

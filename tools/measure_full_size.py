"""Build an architecture at full size with random weights, in a process of its own, and measure time and peak memory.

`python -m tools.measure_full_size koala-700m sdxl-base` prints a table, and one JSON line per model with `--json FILE`.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

#: Architecture → the recipe whose shapes, precision and targets are used.
RECIPES = {
    "koala-700m": "koala-700m",
    "koala-1b": "koala-1b",
    "sdxl-base": "sdxl-base",
    "sd-v1-5": "sd-v1-5",
    "bk-sdm-tiny": "bk-sdm-tiny",
}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(sorted(RECIPES)))
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Append one line of JSON per model.")
@click.option("--keep", type=click.Path(path_type=Path), help="Keep the bundles in this folder.")
@click.option("--work", type=click.Path(path_type=Path), default=None, help="Where the store goes [a temporary folder].")
def main(names: tuple[str, ...], json_file: Path | None, keep: Path | None, work: Path | None) -> None:
    """Measure `t2iexport build` with an empty cache."""
    print(f"{'model':<14}{'seconds':>9}{'peak RSS':>11}{'bundle':>11}")
    for name in names or ("koala-700m",):
        result = measure(name, keep, work)
        print(f"{name:<14}{result['seconds']:>9.0f}{result['peak_gb']:>8.1f} GB{result['bundle_gb']:>8.2f} GB", flush=True)
        for row in result["stages"]:
            print(f"    {row['subject']:<32}{row['verb']:<10}{row['seconds']:>8.1f} s")
        if json_file:
            with json_file.open("a") as file:
                file.write(json.dumps(result) + "\n")


def measure(name: str, keep: Path | None, work: Path | None) -> dict[str, object]:
    """Build in a child process; its peak resident memory is what the kernel accounts (`ru_maxrss`), mapped weights included."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        out = (keep or Path(folder)) / name
        shutil.rmtree(out, ignore_errors=True)
        start = time.perf_counter()
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "tools.measure_full_size_child",
                f"recipes/{RECIPES[name]}.yaml",
                str(out),
                f"--set=model.source={name}",
                "--set=model.weights=random",
                "--set=model.revision=null",
                "--set=checks.skip=random weights at full size, built for time and memory alone",
            ],
            env={**os.environ, "XDG_CACHE_HOME": folder},
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - start
        if done.returncode:
            raise click.ClickException(f"{name}: exit status {done.returncode}\n{done.stderr[-2000:]}")
        child = json.loads(done.stdout.splitlines()[-1])
        size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file()) / 1e9
    return {
        "model": name,
        "seconds": seconds,
        "peak_gb": child["peak_kb"] * 1024 / 1e9,
        "bundle_gb": size,
        "stages": child["stages"],
    }


def peak_kb() -> int:
    """Largest resident set of this process so far, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()

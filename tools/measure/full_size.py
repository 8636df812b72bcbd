"""Build architectures at full size with random weights and an empty cache, and measure time and peak memory.

`python -m tools.measure.full_size koala-700m sdxl-base` prints a table; `--json FILE` keeps one line per model. Names are of
recipes: `sdxl-to-koala-700m` is SDXL, pruned on the way. What KOALA's model card and the hub say stands beside.

Nothing is recorded or checked, so a format that is calibrated needs `--set checks.skip=null`, and a size and steps that a
processor can play:

    python -m tools.measure.full_size koala-700m --set checks.skip=null --set "sampler.steps=[2]"
        --set "shapes={height: [256, 256, 512], width: [256, 256, 512], batch: [1, 1, 2]}"
        --set "components.unet.passes=[{quantize: {format: int8, rest: int8-weights, gate: size}}]"
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import psutil

from engines.bundle import Bundle

#: Recipe → parameters of the UNet in millions (etri-vilab/koala-700m's card) and megabytes of its half-precision file (the hub's
#: listings). Multiply-adds and build times were not published.
PUBLISHED = {"sdxl-base": (2567, 5140), "sdxl-to-koala-1b": (1161, 2320), "sdxl-to-koala-700m": (782, 1570)}
#: Seconds between two looks at the memory.
PACE = 0.1
SKIP = "random weights at full size, built for time and memory alone"


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--set", "assignments", multiple=True, metavar="PATH=VALUE", help="Change the recipes.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Append one line of JSON per model.")
@click.option("--work", type=click.Path(path_type=Path), default=None, help="Where cache and bundle go [a temporary folder].")
@click.option("--store", type=click.Path(path_type=Path), help="Reuse what is there: a build is then measured for what differs.")
def main(
    names: tuple[str, ...], assignments: tuple[str, ...], json_file: Path | None, work: Path | None, store: Path | None
) -> None:
    """Measure `t2iexport build recipes/NAME.yaml`, with random weights as the recipe's header says."""
    for name in names:
        result = measure(name, work, assignments, store)
        print(f"{'model':<14}{'seconds':>9}{'CPU s':>9}{'peak RSS':>11}{'own':>11}{'bundle':>11}")
        times = f"{result['seconds']:>9.0f}{result['cpu_seconds']:>9.0f}"
        memory = f"{result['peak_gb']:>8.1f} GB{result['own_gb']:>8.1f} GB"
        print(f"{name:<14}{times}{memory}{result['bundle_gb']:>8.2f} GB", flush=True)
        unet, told = result["unet"], PUBLISHED.get(name)
        beside = f"; published {told[0]} M, {told[1]} MB in half precision" if told else ""
        size = f"{unet['parameters'] / 1e6:,.0f} M parameters, {unet['multiply_adds'] / 1e9:,.0f} G multiply-adds a call"
        print(f"    unet: {size}, {unet['engine_mb']:,.0f} MB engine in {unet['engine_seconds']:.0f} s{beside}")
        for note in result["notes"]:
            print(f"    {note}")
        for row in result["stages"]:
            print(f"    {row['subject']:<32}{row['stage']:<10}{row['seconds']:>8.1f} s")
        if json_file:
            with json_file.open("a") as file:
                file.write(json.dumps(result) + "\n")


def measure(name: str, work: Path | None, assignments: tuple[str, ...] = (), store: Path | None = None) -> dict[str, Any]:
    """Build once in processes of its own, with changes to the recipe and an empty store or the one given.

    Returns:
        Wall-clock and processor seconds; the peak of the resident memory of all its processes together, in GB, mapped weights
        included and shared pages counted once per process, and the peak of what is their own: pages of mapped files are given
        back where memory is short; the bundle's size in GB; the stages; of the UNet what one call of the
        pipeline costs, guidance's two branches included, and its engine; the bundle's notes on what was quantized.

    """
    with tempfile.TemporaryDirectory(dir=work) as folder:
        out, log = Path(folder) / "bundle", Path(folder) / "log"
        settings = [*_made_up(name), f"checks.skip={SKIP}", *assignments]
        cache = str((store or Path(folder)).absolute())
        command = [str(Path(sys.executable).with_name("t2iexport")), "build", f"recipes/{name}.yaml", "--json", "-o", str(out)]
        start = time.perf_counter()
        with log.open("w") as errors:
            process = subprocess.Popen(
                [*command, *(f"--set={setting}" for setting in settings)],
                stdout=subprocess.PIPE, stderr=errors, env={**os.environ, "XDG_CACHE_HOME": cache},
            )  # fmt: skip
            peak, own, cpu = _watch(psutil.Process(process.pid))
        printed, _ = process.communicate()
        seconds = time.perf_counter() - start
        if process.returncode:
            raise click.ClickException(f"{name}: exit status {process.returncode}\n{log.read_text()[-2000:]}")
        size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
        notes = [note for note in Bundle.open(out).manifest.notes if ": quantize: " in note]
        engines = [file.stat().st_size for file in out.glob("engines/*/unet.engine")]
    stages = json.loads(printed)["stages"]
    unet: dict[str, float] = {**_counted(name, assignments)}
    unet["engine_mb"] = sum(engines) / 1e6
    unet["engine_seconds"] = sum(
        row["seconds"] for row in stages if row["stage"] == "engine" and row["subject"].startswith("unet,")
    )
    figures = {"seconds": seconds, "cpu_seconds": cpu, "peak_gb": peak / 1e9, "own_gb": own / 1e9, "bundle_gb": size / 1e9}
    return {"model": name, "set": list(assignments), **figures, "unet": unet, "notes": notes, "stages": stages}


def _made_up(name: str) -> list[str]:
    """The settings by which a recipe's header builds it without weights."""
    lines = Path(f"recipes/{name}.yaml").read_text().splitlines()
    told = next((line for line in lines if line.startswith("#") and "model.source=" in line), "")
    if not told:
        raise click.ClickException(f"recipes/{name}.yaml does not say how to build it without weights: --set model.source=…")
    return [*re.findall(r"--set (\S+)", told), "model.revision=null"]


def _counted(name: str, assignments: Sequence[str] = ()) -> dict[str, int]:
    """Parameters and multiply-adds of a recipe's UNet with changes to the recipe, after its passes."""
    from exporter.recipe.schema import Recipe  # noqa: PLC0415
    from exporter.reference.cost import count  # noqa: PLC0415 - torch, which shall not stand in the memory of a build
    from exporter.stages.plan import Plan  # noqa: PLC0415

    size = count(Plan(Recipe.load(Path(f"recipes/{name}.yaml"), [*_made_up(name), *assignments])).passes.expected_family)["unet"]
    return {"parameters": size.parameters, "multiply_adds": size.multiply_adds}


def _watch(process: psutil.Process) -> tuple[int, int, float]:
    """Peak of resident memory and of that which no file backs, bytes, and processor seconds, of a process and its children."""
    peak, own, cpu = 0, 0, 0.0
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        try:
            family = [process, *process.children(recursive=True)]
            memory = [member.memory_info() for member in family]
            peak, own = max(peak, sum(each.rss for each in memory)), max(own, sum(each.rss - each.shared for each in memory))
            times = process.cpu_times()
            cpu = max(cpu, times.user + times.system + times.children_user + times.children_system)
        except psutil.NoSuchProcess:  # a child ended while it was looked at
            continue
        time.sleep(PACE)
    return peak, own, cpu


if __name__ == "__main__":
    main()

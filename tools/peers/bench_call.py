"""One network's call beside OpenVINO's own `benchmark_app`, on the same engine and sizes: what the runner adds to it.

    python -m tools.peers.bench_call bundles/bk-sdm-tiny
    python -m tools.peers.bench_call bundles/bk-sdm-tiny --part vae_decoder --rounds 6 --seconds 20

Both are measured for so many seconds in turns, another one first each time, with one request at a time and as many threads.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import click
import numpy as np

from engines.backends.openvino import OpenVino
from engines.bundle import Bundle
from engines.signature import Signature

BACKEND = "openvino"
_WARM_UP = 3


def inputs(signature: Signature) -> dict[str, np.ndarray]:
    """Typical sizes; standard normal numbers, zeros for ids."""
    rng, extent = np.random.default_rng(0), signature.extent("typical")
    shapes = {port: signature.shape(port, extent) for port in signature.inputs}
    return {
        port.name: rng.standard_normal(shape, np.float32) if port.dtype == "float32" else np.zeros(shape, port.dtype)
        for port, shape in shapes.items()
    }


def told(output: str) -> float:
    """The median that benchmark_app printed, in ms.

    Raises:
        click.ClickException: it printed none; with its last words.

    """
    found = re.search(r"Median:\s+([\d.]+) ms", output)
    if not found:
        raise click.ClickException(f"benchmark_app told no median:\n{output[-1500:]}")
    return float(found.group(1))


def timed(call: Callable[[], object], seconds: float) -> float:
    """Median of the calls that fit, in ms."""
    times, end = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def command(engine: Path, given: Mapping[str, np.ndarray], precision: str, seconds: float) -> list[str]:
    """Of benchmark_app, beside this Python."""
    shapes = ",".join(f"{name}[{','.join(map(str, array.shape))}]" for name, array in given.items())
    words = {"m": engine, "d": "CPU", "hint": "none", "nstreams": 1, "api": "sync", "t": max(1, round(seconds))}
    words |= {"infer_precision": precision, "shape": shapes, "data_shape": shapes}
    program = [sys.executable, "-c", "from openvino.tools.benchmark.main import main; main()"]
    return [*program, *(str(word) for name, value in words.items() for word in (f"-{name}", value))]


@click.command(help=__doc__)
@click.argument("bundle", type=click.Path(path_type=Path, exists=True))
@click.option("--part", default="unet", show_default=True)
@click.option("--rounds", default=4, show_default=True)
@click.option("--seconds", default=12.0, show_default=True, help="Of each, in each round.")
def main(bundle: Path, part: str, rounds: int, seconds: float) -> None:
    """Measure both, and print each round's ratio."""
    opened = Bundle.open(bundle)
    entry = opened.manifest.parts[part]
    if BACKEND not in entry.engines:
        raise click.ClickException(f"{bundle}: {part} has no engine of {BACKEND}; it has {', '.join(entry.engines)}.")
    files = [opened.path(file) for file in entry.engines[BACKEND].files]
    backend = OpenVino.model_validate(entry.engines[BACKEND].options)
    given, own, theirs = inputs(entry.signature), list[float](), list[float]()
    precision = {"fp32": "f32", "fp16": "f16"}.get(backend.computes(entry.precision), "bf16")
    with backend.open(files, entry.signature) as engine:
        for _ in range(_WARM_UP):
            engine(given)
        peer = command(next(file for file in files if file.suffix == ".xml"), given, precision, seconds)
        for number in range(rounds):
            for turn in (number, number + 1):
                if turn % 2:
                    own.append(timed(lambda: engine(given), seconds))
                else:
                    theirs.append(told(subprocess.run(peer, capture_output=True, text=True, check=False).stdout))
            click.echo(f"{own[-1]:9.2f} ms   benchmark_app {theirs[-1]:9.2f} ms   {own[-1] / theirs[-1]:.3f}")
    ratios = [mine / other for mine, other in zip(own, theirs, strict=True)]
    click.echo(
        f"{part}, {BACKEND} {precision}: {statistics.median(ratios):.3f} times as long as benchmark_app, median of {rounds}"
    )


if __name__ == "__main__":
    main()

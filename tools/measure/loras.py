"""What LoRAs as inputs cost: a bundle without them, the same with them at rest, and with one or more of a rank, in one run.

    t2iexport build recipes/demo.yaml -o bundles/demo
    t2iexport build recipes/demo.yaml -o bundles/demo-loras --set "components.unet.lora={max_rank: 64, slots: 2}"
    python -m tools.measure.loras bundles/demo bundles/demo-loras --rank 64

Rounds are interleaved, so that what else the machine does falls on all of them; medians are shown. The LoRAs are made up, and
change every layer that takes one: as costly as a LoRA of that rank can be. `--form rows` makes them of products alone, as most
published ones are.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import click
import numpy as np
from safetensors.numpy import save_file

from engines.lora.layers import LoraLayer, LoraLayers
from engines.pipeline import Pipeline
from exporter.report import console

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("base", type=_FOLDER)
@click.argument("adapted", type=_FOLDER)
@click.option("--rank", type=click.IntRange(1), default=64, show_default=True, help="Of each LoRA.")
@click.option("--form", "forms", type=click.Choice(["rows", "pixels", "convolution"]), multiple=True, help="Only such layers.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="That count, after one that warms up.")
@click.option("--steps", type=int, help="Of the sampler; the bundles say which they have.")
@click.option("--backend", help="Whose engines.")
def main(
    base: Path, adapted: Path, rank: int, forms: tuple[str, ...], rounds: int, steps: int | None, backend: str | None
) -> None:
    """Time pictures of two bundles, the second with inputs for LoRAs, and of that one with LoRAs of a rank."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        plain, open_one = (stack.enter_context(Pipeline.open(path, backend)) for path in (base, adapted))
        entry = open_one.bundle.manifest.parts["unet"].lora
        if entry is None:
            raise click.UsageError(f"{adapted} takes no LoRAs: build it with components.unet.lora")
        layers = LoraLayers.load(open_one.bundle.path(entry.layers)).taken
        taken = [layer for layer in layers if not forms or layer.form in forms]
        limit = entry.limits.conv_rank
        files = [made(taken, rank, limit, number, folder) for number in range(entry.limits.slots)]

        def run(pipeline: Pipeline, count: int) -> Callable[[], object]:
            return lambda: pipeline.generate("a red circle", steps=steps, loras=files[:count])

        racers = {"without inputs": run(plain, 0)}
        racers |= {f"{count or 'no'} LoRA{'s' * (count != 1)}": run(open_one, count) for count in range(entry.limits.slots + 1)}
        medians = race(racers, rounds)
        console.show({"loras": [*rows(medians, next(iter(medians)))]})
        size = sum(path.stat().st_size for path in files[:1]) / 1e6
        sys.stdout.write(f"{len(taken)} of {len(layers)} layers, rank {rank}, {size:.1f} MB a LoRA; engine {plain.engine}\n")


def made(layers: list[LoraLayer], rank: int, conv_rank: int, seed: int, folder: Path) -> Path:
    """Write a LoRA that changes these layers of a UNet; larger convolutions by no more than the bundle takes."""
    random, tensors = np.random.default_rng(seed), dict[str, np.ndarray]()
    for layer in layers:
        own = min(rank, conv_rank) if layer.form == "convolution" else rank
        outputs, *inside = layer.shape
        tensors[f"unet.{layer.name}.lora_A.weight"] = random.standard_normal((own, *inside), np.float32) / 100
        tensors[f"unet.{layer.name}.lora_B.weight"] = random.standard_normal((outputs, own), np.float32) / 100
    file = folder / f"lora_{seed}.safetensors"
    save_file(tensors, file)
    return file


def race(racers: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each, in interleaved rounds after one that warms up."""
    taken: dict[str, list[float]] = {name: [] for name in racers}
    for number in range(rounds + 1):
        for name, run in racers.items():
            start = time.perf_counter()
            run()
            if number:
                taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in taken.items()}


def rows(medians: dict[str, float], against: str) -> Iterator[str]:
    """A line each: seconds, times the base, and what the last slot added."""
    before = None
    for name, seconds in medians.items():
        added = "" if before is None else f", {(seconds - before) / medians[against]:+.1%} of the base"
        yield f"{name}: {seconds:.3f} s, {seconds / medians[against]:.2f} × the base{added}"
        before = seconds


if __name__ == "__main__":
    main()

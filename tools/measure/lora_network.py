"""What LoRAs as inputs cost a UNet of full size, with random weights: its graph with and without them, raced call by call.

    python -m tools.measure.lora_network bk-sdm-tiny --side 32 --rank 64 --conv-rank 0

CPU seconds of this process are counted beside the clock's: what else the machine does falls on the clock alone. A call is one
item with both branches of guidance. Nothing but the UNet is built, and nothing is checked.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

from engines import plugins
from engines.lora.layers import LoraLayers, LoraLimits
from engines.lora.stacking import Arrays, LoraTarget, scaled, stacked
from engines.signature import Signature
from exporter.models.architectures import names
from exporter.onnx.export import export, save
from exporter.onnx.lora_inputs import LoraGraphPass
from exporter.recipe.schema import Recipe
from exporter.stages.plan import Plan

RECIPE = """
model: {source: %s, weights: random}
sampler:
  {scheduler: EulerDiscreteScheduler, steps: [1], guidance: {mode: classifier_free, scale: 5.0}, force: true}
shapes: {height: [%d, %d, %d], width: [%d, %d, %d], batch: [1, 1, 1]}
"""


@click.command()
@click.argument("architecture", type=click.Choice(names()))
@click.option("--side", type=int, default=32, show_default=True, help="Of the latent, in cells.")
@click.option("--rank", type=int, default=64, show_default=True, help="Of a LoRA; a multiple of 8.")
@click.option("--conv-rank", type=int, default=0, show_default=True, help="The same in larger convolutions; 0: none.")
@click.option("--slots", type=int, default=2, show_default=True)
@click.option("--rounds", type=int, default=3, show_default=True)
@click.option("--backend", default="onnxruntime", show_default=True)
def main(architecture: str, side: int, rank: int, conv_rank: int, slots: int, rounds: int, backend: str) -> None:
    """Race a UNet's graph without inputs for LoRAs, with none fed, and with one and more of a rank."""
    size = 8 * side
    family = Plan(Recipe.parse(RECIPE % (architecture, *[size] * 6), "measured")).family
    limits = LoraLimits(slots=slots, max_rank=rank, conv_rank=conv_rank)
    with tempfile.TemporaryDirectory() as folder:
        part = family.part("unet", "fp32")
        adding = LoraGraphPass(limits, "unet", part.network, family.checkpoint.configs["unet"], family.guidance.branches)
        opener, calls = plugins.load("backends", backend)(), dict[str, Callable[[], object]]()
        feed = _inputs(part.signature)
        for name, own in (("without inputs", None), ("with inputs", adding)):
            place = Path(folder) / name.replace(" ", "_")
            place.mkdir()
            save(export(part, opener.opset, processor=True, lora=own), place / "unet.onnx")
            signature = own.signature(part.signature) if own else part.signature
            engine = opener.open(opener.build(place / "unet.onnx", signature, place), signature)
            if own is None:
                calls[name] = lambda engine=engine: engine(feed)
                continue
            target = LoraTarget.of("unet", limits, LoraLayers(layers=tuple(own.found)))
            for count in range(slots + 1):
                fed = feed | made_up(target, count)
                calls[f"{count or 'no'} LoRA{'s' * (count != 1)}"] = lambda engine=engine, fed=fed: engine(fed)
        for line in lines(race(calls, rounds)):
            sys.stdout.write(f"{line}\n")
        sys.stdout.write(
            f"{architecture}, {size} px, {len(target.taken)} layers, rank {rank}, {conv_rank} in convolutions, {backend}\n"
        )


def made_up(target: LoraTarget, count: int) -> Arrays:
    """Inputs of so many LoRAs of the largest rank in every layer; none where there are none."""
    random = np.random.default_rng(0)

    def pair(shape: tuple[int, ...], rank: int) -> tuple[np.ndarray, np.ndarray]:
        return random.standard_normal((rank, *shape[1:]), np.float32) / 100, random.standard_normal(
            (shape[0], rank), np.float32
        ) / 100

    ranks = {"convolution": target.limits.conv_rank}
    loras = [{layer.name: pair(layer.shape, ranks.get(layer.form, target.limits.max_rank)) for layer in target.taken}] * count
    return stacked(target, loras) | scaled(target, loras, [[1.0]] * count) if count else {}


def race(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, tuple[float, float]]:
    """Median seconds of the clock and of the CPU, of each, in interleaved rounds after one that warms up."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            wall, own = time.perf_counter(), time.process_time()
            call()
            if number:
                taken[name].append((time.perf_counter() - wall, time.process_time() - own))
    return {
        name: (statistics.median(wall for wall, _ in each), statistics.median(own for _, own in each))
        for name, each in taken.items()
    }


def lines(medians: dict[str, tuple[float, float]]) -> list[str]:
    """Seconds of each, and times the first."""
    wall, own = next(iter(medians.values()))
    return [
        f"{name:<16}{mine:>9.3f} s {mine / wall:>6.2f} ×{cpu:>11.3f} CPU s {cpu / own:>6.2f} ×"
        for name, (mine, cpu) in medians.items()
    ]


def _inputs(signature: Signature) -> dict[str, np.ndarray]:
    sizes = signature.extent("typical")
    random = np.random.default_rng(1)
    found = {port.name: random.standard_normal(signature.shape(port, sizes), np.float32) for port in signature.inputs}
    return found | {"timestep": np.full(found["timestep"].shape, 500, np.float32)}


if __name__ == "__main__":
    main()

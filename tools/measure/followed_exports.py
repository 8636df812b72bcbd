"""What it takes to export models of the hand-written families by following diffusers' own pipeline instead.

    python -m tools.measure.followed_exports sd-v1-5 sdxl-base --rounds 3

Both ways export the same architecture with random weights in fp16 into an empty store, each in a process of its own, in turns.
Measured are the plan, which follows the pipeline once, and every export, in seconds of processors, which other work on the
machine hardly lengthens.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click

from engines import plugins

_RECIPE = """
model: {source: %s, weights: random}
sampler: {steps: [2], guidance: {mode: classifier_free, scale: 5.0}}
shapes: {height: [512, 512, 1024], width: [512, 512, 1024], batch: [1, 1, 1]}
components: {text_encoder: {precision: fp16}, unet: {precision: fp16}, vae_decoder: {precision: fp16}}
checks: {skip: exported for its time alone}
"""
#: What the families are called here: the one that claims the model, and the one that follows it.
WAYS = ("by hand", "followed")


def exported(name: str, way: str) -> dict[str, float]:
    """Export an architecture one way.

    Args:
        name: of the architecture.
        way: one of `WAYS`.

    Returns:
        Seconds of processors of the plan, and of each part's export.

    """
    from exporter.recipe.schema import Recipe  # noqa: PLC0415 - torch, in a process that ends
    from exporter.stages.plan import Plan  # noqa: PLC0415
    from exporter.stages.stage import Results  # noqa: PLC0415
    from exporter.stages.store import Store  # noqa: PLC0415

    if way == "followed":
        for each in plugins.names("families"):
            family = plugins.load("families", each)
            if not family.general:
                family.claims = staticmethod(lambda _: False)
    start, seconds = time.process_time(), dict[str, float]()
    plan = Plan(Recipe.parse(_RECIPE % name, name))
    stages = plan.stages
    seconds["plan"] = time.process_time() - start
    with tempfile.TemporaryDirectory() as folder:
        results = Results(Store(Path(folder)))
        for stage in (each for each in stages if each.verb == "export"):
            start = time.process_time()
            results[stage]
            seconds[stage.subject.partition(",")[0]] = time.process_time() - start
    return seconds


def _alone(name: str, way: str) -> dict[str, float]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(exported, (name, way))


@click.command()
@click.argument("names", nargs=-1)
@click.option("--rounds", default=1, show_default=True, help="Exports each way, in turns.")
def main(names: Sequence[str], rounds: int) -> None:
    """Export architectures by the family written for them, and by following their pipeline."""
    for name in names or ("sd-v1-5", "sdxl-base"):
        taken: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for round_ in range(rounds):
            for way in WAYS if round_ % 2 else reversed(WAYS):
                taken[way].append(_alone(name, way))
        print(f"{name:<16}{'plan':>9}{'exports':>10}   of them")
        sums = {way: statistics.median(sum(each.values()) - each["plan"] for each in runs) for way, runs in taken.items()}
        for way, runs in taken.items():
            plan = statistics.median(each["plan"] for each in runs)
            parts = [f"{part} {statistics.median(each[part] for each in runs):.1f} s" for part in runs[0] if part != "plan"]
            print(f"  {way:<14}{plan:>7.1f} s{sums[way]:>8.1f} s   {', '.join(parts)}", flush=True)
        by_hand, followed = (sums[way] for way in WAYS)
        print(f"  followed takes {followed / by_hand:.2f} times as long")


if __name__ == "__main__":
    main()

"""Measures schedules of step caching: whole steps spread evenly, beside those that the search chooses by its sums alone.

    python -m tools.measure.cache_schedules recipes/demo-cached.yaml --prompts recipes/sweep-demo-prompts.txt --whole 13,9

Nothing is built: the source draws each prompt without caching, and with each schedule, on the same noise; the figure is the mean
PSNR of the images to the uncached ones. The recipe's own cache is left out; `--set` changes the rest.
"""

from __future__ import annotations

import statistics
from pathlib import Path

import click

from exporter.caching.search import beside
from exporter.recipe.schema import Recipe
from exporter.report import console
from exporter.stages.plan import Plan
from exporter.stages.tables import compiled


@click.command()
@click.argument("recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--set", "assignments", multiple=True, metavar="PATH=VALUE", help="Change the recipe.")
@click.option("--prompts", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A prompt a line [the recipe's].")
@click.option("--count", type=click.IntRange(min=1), default=12, show_default=True, help="Of the prompts, spread over the file.")
@click.option("--whole", default="13,9", show_default=True, metavar="N,N", help="Whole steps, a row each.")
def main(recipe: Path, assignments: tuple[str, ...], prompts: Path | None, count: int, whole: str) -> None:
    """Draw with RECIPE's sampler by schedules of both kinds."""
    chosen = Recipe.load(recipe, assignments)
    if prompts:
        lines = [line.strip() for line in prompts.read_text(encoding="utf-8").splitlines() if line.strip()]
        checks = chosen.checks.model_copy(update={"prompts": tuple(lines[:: max(1, len(lines) // count)][:count])})
        chosen = chosen.model_copy(update={"checks": checks})
    family = Plan(chosen).family.replacing(recipe=chosen)
    (steps,) = chosen.sampler.steps
    rows = [
        {
            "whole steps": f"{len(even.whole)} of {steps}",
            "multiply-adds": f"{even.share:.3f}, {sums.share:.3f}",
            "spread evenly": f"{statistics.fmean(even.psnr):.1f} dB",
            "by the sums alone": f"{statistics.fmean(sums.psnr):.1f} dB",
        }
        for even, sums in beside(family, chosen, compiled(family, steps), [int(each) for each in whole.split(",")])
    ]
    console.show({"prompts": str(len(chosen.checks.prompts)), "schedules": rows})


if __name__ == "__main__":
    main()

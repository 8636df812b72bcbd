"""The measured half of `tools.measure_full_size`: one build, then its stages and peak memory as a line of JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from exporter.build import build
from exporter.cache import Store
from exporter.recipe import Recipe
from tools.measure_full_size import peak_kb

if TYPE_CHECKING:
    from exporter.plan import Stage


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--set", "assignments", multiple=True)
def main(recipe: Path, out: Path, assignments: tuple[str, ...]) -> None:
    """Build once."""
    rows: list[dict[str, object]] = []

    def report(stage: Stage, seconds: float | None = None, *, cached: bool = False, why: str = "") -> None:  # noqa: ARG001
        if seconds is not None:
            rows.append({"subject": stage.subject, "verb": stage.verb, "seconds": round(seconds, 2)})

    build(Recipe.load(recipe, assignments), out, Store(), report)
    print(json.dumps({"stages": rows, "peak_kb": peak_kb()}))


if __name__ == "__main__":
    main()

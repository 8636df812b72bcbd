"""Draws what a search for blocks found: what each piece costs by itself, and how the network changed as pieces went.

    python -m tools.measure.draw_search bundles/demo-search docs/images/search.png

BUNDLE is that of a recipe with ``prune: {search: …}``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

_SHOWN = 16
_INK, _BLUE, _RED = "#1f2933", "#1d4e89", "#a23b2a"


def draw(found: Mapping[str, Any]) -> Figure:
    """Left the pieces that cost least for what they save, right what went, in order, and how the output changed on the way."""
    figure = Figure(figsize=(13, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    alone, gone = found["alone"][:_SHOWN], found["curve"][1:]
    left.barh(range(len(alone)), [row["change"] for row in alone], color=_BLUE, height=0.65)
    for place, row in enumerate(alone):
        left.annotate(f" saves {row['saves']:.1%}", (row["change"], place), va="center", fontsize=8, color=_INK)
    left.set_yticks(range(len(alone)), [row["piece"] for row in alone], fontsize=8)
    left.set_xlim(0, 1.25 * max(row["change"] for row in alone))
    left.set_title("each alone, best for what it saves first", loc="left", fontsize=10)
    right.plot([point["change"] for point in gone], range(len(gone)), "o-", color=_RED, markersize=5)
    for place, point in enumerate(gone):
        right.annotate(f"  {point['share']:.1%} left", (point["change"], place), va="center", fontsize=8, color=_INK)
    right.set_yticks(range(len(gone)), [point["gone"] for point in gone], fontsize=8)
    right.set_xscale("log")
    right.set_xlim(right.get_xlim()[0], 3 * max(point["change"] for point in gone))
    right.set_title(f"one after the other, to {found['budget']:.0%} of the {found['of']}", loc="left", fontsize=10)
    for axes in (left, right):
        axes.invert_yaxis()
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:g}%"))
        axes.set_xlabel("change of the output (relative L2)")
        axes.grid(axis="x", alpha=0.3)
    return figure


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True))
@click.argument("picture", type=click.Path(path_type=Path))
def main(bundle: Path, picture: Path) -> None:
    """Draws the search of a bundle, or of a file of what it found, into PICTURE."""
    file = bundle / "passes" / "unet-prune.json" if bundle.is_dir() else bundle
    if not file.is_file():
        raise click.ClickException(f"{file} is not there: the bundle's recipe has no prune with search")
    draw(json.loads(file.read_text())).savefig(picture, dpi=110)


if __name__ == "__main__":
    main()

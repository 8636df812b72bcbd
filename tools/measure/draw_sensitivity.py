"""Draws what a scan of layers found: how much of the network's output each costs when it alone is quantized.

    python -m tools.measure.draw_sensitivity bundles/demo-int8 docs/images/sensitivity.png

BUNDLE is that of a recipe with ``quantize: {keep_above: …}`` or ``budget``, or a file such as its ``calibration/unet.json``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import numpy as np
from matplotlib.figure import Figure

from engines.errors import T2IError
from exporter.quantization.calibration import Calibration, read

_SHOWN = 20
_INK, _PALE = "#1f2933", "#d5dbe1"
#: What became of a layer → colour and marker.
_KINDS = {
    "quantized": ("#1d4e89", "o"), "weights in 8 bits": ("#b7791f", "s"), "stays as it was": ("#a23b2a", "D"),
}  # fmt: skip
_STAYED = {True: "weights in 8 bits", False: "stays as it was"}
_UNNAMED = "remade by graph passes"


def draw(found: Calibration) -> Figure:
    """Left every layer in the network's order, a row a group; right the most sensitive ones by name."""
    scanned = list(found.sensitivity.items())  # in the network's order
    worst = sorted(scanned, key=lambda pair: pair[1])[:_SHOWN]
    became = {name: "quantized" if name not in found.kept else _STAYED[name in found.layers] for name in found.sensitivity}
    figure = Figure(figsize=(13, 5.6), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
    groups = _groups([name for name, _ in scanned])
    for kind, (colour, marker) in _KINDS.items():
        some = [(decibels, name) for name, decibels in scanned if became[name] == kind]
        if not some:
            continue
        heights = [groups[name] for _, name in some]
        size = 18 if marker == "o" else 30
        label = f"{kind}: {len(some)} layers"
        left.scatter([x for x, _ in some], heights, s=size, c=colour, marker=marker, alpha=0.75, linewidths=0, label=label)
    rows = list(dict.fromkeys(_group(name) for name in groups))
    left.set_yticks(range(len(rows)), rows, fontsize=8)
    left.set_title(f"each of {len(scanned)} layers alone, {found.format}", loc="left", fontsize=10)
    left.set_ylim(-1.1, len(rows) - 0.4)
    if found.measured is not None:
        left.axvline(found.measured, color=_INK, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        left.annotate(
            f"all of it together: {found.measured:.1f} dB", (found.measured, -0.85), (5, 0),
            textcoords="offset points", va="center", fontsize=8, color=_INK,
        )  # fmt: skip
    left.legend(loc="lower right", fontsize=8, frameon=True, framealpha=0.9, edgecolor=_PALE)
    lowest, top = worst[0][1], worst[-1][1]
    start = lowest - 0.12 * (top - lowest + 1)
    for place, (name, decibels) in enumerate(worst):
        colour, marker = _KINDS[became[name]]
        right.plot([start, decibels], [place, place], color=_PALE, linewidth=1.5, zorder=1)
        right.plot([decibels], [place], marker, color=colour, markersize=5, zorder=2)
        right.annotate(
            f"{decibels:.1f}", (decibels, place), (6, 0), textcoords="offset points", va="center", fontsize=8, color=_INK
        )
    right.set_xlim(start, top + 0.14 * (top - start))
    right.set_yticks(range(len(worst)), [name for name, _ in worst], fontsize=8)
    right.set_title(f"the {len(worst)} most sensitive", loc="left", fontsize=10)
    for axes in (left, right):
        axes.invert_yaxis()
        axes.set_xlabel("PSNR of the network's output, worst of the calls (dB)", fontsize=9)
        axes.tick_params(axis="x", labelsize=8)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _groups(names: Sequence[str]) -> Mapping[str, float]:
    """Layer → its height: that of its group's row, and a little above or below by its place there."""
    rows: dict[str, list[str]] = {}
    for name in names:
        rows.setdefault(_group(name), []).append(name)
    heights = {}
    for row, group in enumerate(rows.values()):
        heights |= dict(zip(group, row + np.linspace(-0.3, 0.3, len(group)) * (len(group) > 1), strict=True))
    return heights


def _group(name: str) -> str:
    """Up to the second word that is no number: `up_blocks.1.attentions`."""
    parts = name.split(".")
    if len(parts) == 1:
        return _UNNAMED if name.startswith("node_") else name
    words = [index for index, part in enumerate(parts) if not part.isdigit()]
    return ".".join(parts[: words[1] + 1]) if len(words) > 2 else parts[0]


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True))
@click.argument("picture", type=click.Path(path_type=Path))
@click.option("--part", default="unet", show_default=True, help="Of the bundle.")
def main(bundle: Path, picture: Path, part: str) -> None:
    """Draws the sensitivities of a bundle's part, or of a file of its calibration, into PICTURE."""
    file = bundle / "calibration" / f"{part}.json" if bundle.is_dir() else bundle
    try:
        found = read(file, "calibration")
    except T2IError as error:
        raise click.ClickException(str(error)) from error
    if not found.sensitivity:
        raise click.ClickException(f"{file} has no sensitivities: the recipe's quantize has neither keep_above nor budget")
    draw(found).savefig(picture, dpi=110)


if __name__ == "__main__":
    main()

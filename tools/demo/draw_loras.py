"""Draws the same prompts and noise by one bundle with no LoRA, with each of the demo's own, and with all of them.

t2iexport build recipes/demo-loras.yaml
python -m tools.demo.draw_loras bundles/demo-loras
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from tools.demo.changes import CHANGES, lora_file
from tools.demo.draw_sheet import sheet
from tools.demo.pictures import from_bundle

PROMPTS = (
    "a green star on a white background",
    "a small red circle left of a large blue square",
    "a large orange triangle above a small cyan cross on brown",
    "a pink star to the right of a green circle",
    "a large purple ring",
    "a yellow square on a gray background",
)


def rows(bundle: Path, seed: int) -> tuple[list[np.ndarray], list[str]]:
    """The pictures, uint8 (64, 64, 3), row after row, and what stands below each."""
    pictures, told = list[np.ndarray](), list[str]()
    for names in ((), *((name,) for name in CHANGES), tuple(CHANGES)):
        with from_bundle(bundle, loras=[lora_file(name) for name in names]) as source:
            pictures += list(source.draw(list(PROMPTS), seed))
        told += [" + ".join(names) or prompt for prompt in PROMPTS]
    return pictures, told


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True))
@click.option("--output", type=click.Path(path_type=Path), default=Path("docs/images/demo-loras.png"), show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(bundle: Path, output: Path, seed: int) -> None:
    """Draws the sheet; nothing is picked by hand."""
    pictures, told = rows(bundle, seed)
    output.parent.mkdir(parents=True, exist_ok=True)
    sheet(np.stack(pictures), tuple(told)).save(output, optimize=True)
    click.echo(output)


if __name__ == "__main__":
    main()

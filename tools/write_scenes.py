"""Writes the demo model's training scenes as a folder of pictures and captions.

    python -m tools.write_scenes scenes --count 20000

``metadata.jsonl`` has a line per picture, ``{"file_name": …, "text": …}``, as
the ``datasets`` library's image folders and the distill pass read it.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
from PIL import Image

from tools import captions, scenes

CAPTION_STREAM = 6
"""Of captions; the model's own training drew them from another."""


def write(folder: Path, count: int, first: int = 0) -> None:
    """Writes scenes ``first`` to ``first + count - 1``, one caption each."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = []
    for seed in range(first, first + count):
        scene = scenes.training_scene(seed)
        name = f"images/{seed:07}.png"
        Image.fromarray(scenes.draw(scene)).save(folder / name)
        text = captions.caption(scene, np.random.default_rng((CAPTION_STREAM, seed)))
        lines.append(json.dumps({"file_name": name, "text": text}) + "\n")
    (folder / "metadata.jsonl").write_text("".join(lines))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--count", type=click.IntRange(min=1), default=20_000, show_default=True)
@click.option("--first", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the first scene.")
def main(folder: Path, count: int, first: int) -> None:
    """Writes pictures and captions into FOLDER."""
    write(folder, count, first)


if __name__ == "__main__":
    main()

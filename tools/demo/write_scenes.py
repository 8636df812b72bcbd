"""Writes the demo model's training scenes as a folder of pictures and captions.

    python -m tools.demo.write_scenes scenes --count 20000

``metadata.jsonl`` has a line per picture, ``{"file_name": …, "text": …}``, as
the ``datasets`` library's image folders and the distill pass read it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import click
import numpy as np
from PIL import Image

from tools.demo import captions, scenes

CAPTION_STREAM = 6
"""Of captions; the model's own training drew them from another."""


_CHUNK = 250
"""Scenes that a process writes at a time."""


def _write(folder: Path, seeds: range) -> list[str]:
    """Writes the scenes of some seeds; returns their lines of metadata."""
    lines = []
    for seed in seeds:
        scene = scenes.training_scene(seed)
        name = f"images/{seed:07}.png"
        Image.fromarray(scenes.draw(scene)).save(folder / name)
        text = captions.caption(scene, np.random.default_rng((CAPTION_STREAM, seed)))
        lines.append(json.dumps({"file_name": name, "text": text}) + "\n")
    return lines


def write(folder: Path, count: int, first: int = 0, processes: int = 1) -> None:
    """Writes scenes ``first`` to ``first + count - 1``, one caption each; the files are the same from any number of processes."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    chunks = [range(start, min(start + _CHUNK, first + count)) for start in range(first, first + count, _CHUNK)]
    if processes > 1:
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            lines = [*pool.map(_write, [folder] * len(chunks), chunks)]
    else:
        lines = [_write(folder, chunk) for chunk in chunks]
    (folder / "metadata.jsonl").write_text("".join(line for some in lines for line in some))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--count", type=click.IntRange(min=1), default=20_000, show_default=True)
@click.option("--first", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the first scene.")
@click.option("--processes", default=len(os.sched_getaffinity(0)), help="[default: one a processor]")
def main(folder: Path, count: int, first: int, processes: int) -> None:
    """Writes pictures and captions into FOLDER."""
    write(folder, count, first, processes)


if __name__ == "__main__":
    main()

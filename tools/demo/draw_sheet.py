"""Draws a sheet of pictures by the demo model, each above its prompt."""

from __future__ import annotations

import textwrap
from pathlib import Path

import click
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tools.demo.pictures import GUIDANCE, STEPS, from_bundle, from_diffusers
from tools.demo.scenes import SIDE

PROMPTS = (
    "a green star on a white background",
    "a small red circle left of a large blue square",
    "a picture of a purple ring",
    "a large orange triangle above a small cyan cross on black",
    "a pink star to the right of a green circle",
    "a yellow square on a brown background",
    "a small cyan ring under a large red triangle",
    "a large blue cross in front of a gray background",
    "an image of an orange ring over a purple square on a white background",
    "a red star on a black background",
    "a blue ring on a white background",
    "a green square on gray",
    "a yellow cross on a brown background",
    "a pink triangle on a black background",
    "a small yellow circle below a small blue star",
    "a large cyan square left of a large orange circle on black",
    "a drawing of a small purple triangle",
    "a red cross to the left of a red ring",
    "a blue circle above a blue triangle on a white background",
    "a large pink ring right of a small green cross on brown",
    "a cyan star under an orange square",
    "a small orange star on a white background",
    "a purple circle over a yellow triangle on gray",
    "a large green triangle to the right of a small pink square",
)
"""One picture each; the tenth to the fourteenth are the held-out pairs."""

_COLUMNS = 6
_SCALE = 2
_TEXT_HEIGHT = 44
_GAP = 8
_LINE = 23


def sheet(pictures: np.ndarray, prompts: tuple[str, ...], columns: int = _COLUMNS) -> Image.Image:
    """Lays out pictures, uint8 (N, 64, 64, 3), enlarged and labelled, so many in a row."""
    cell = SIDE * _SCALE
    rows = -(-len(prompts) // columns)
    size = (columns * (cell + _GAP) + _GAP, rows * (cell + _TEXT_HEIGHT) + _GAP)
    page = Image.new("RGB", size, (238, 238, 238))
    pen = ImageDraw.Draw(page)
    font = ImageFont.load_default(10)
    for index, (picture, prompt) in enumerate(zip(pictures, prompts, strict=True)):
        row, column = divmod(index, columns)
        x, y = _GAP + column * (cell + _GAP), _GAP + row * (cell + _TEXT_HEIGHT)
        page.paste(Image.fromarray(picture).resize((cell, cell), Image.Resampling.NEAREST), (x, y))
        lines = "\n".join(textwrap.wrap(prompt, _LINE)[:3])
        pen.multiline_text((x, y + cell + 2), lines, fill=(20, 20, 20), font=font, spacing=1)
    return page


@click.command()
@click.option("--recipe", type=click.Path(path_type=Path), default=Path("recipes/demo"))
@click.option("--bundle", type=click.Path(path_type=Path), default=None, help="Draw with this bundle, without torch.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("docs/images/demo.png"))
@click.option("--guidance", default=GUIDANCE, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(recipe: Path, bundle: Path | None, output: Path, guidance: float, seed: int) -> None:
    """Draws the sheet with the recipe's pipeline, or with a bundle; nothing is picked by hand."""
    with from_bundle(bundle) if bundle else from_diffusers(recipe, STEPS, guidance) as source:
        drawn = source.draw(list(PROMPTS), seed)
    output.parent.mkdir(parents=True, exist_ok=True)
    sheet(drawn, PROMPTS).save(output, optimize=True)
    click.echo(f"{len(PROMPTS)} pictures, each above its prompt: {output}")


if __name__ == "__main__":
    main()

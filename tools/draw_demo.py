"""Draw the demo's pictures: `python -m tools.draw_demo bundles/demo` writes them and one sheet, and says where."""

from __future__ import annotations

import time
from pathlib import Path

import click
from PIL import Image, ImageDraw

from engines.picture import save
from engines.pipeline import Pipeline

PROMPTS = (
    "a small red circle left of a large blue square",
    "a green star on a white background",
    "a large yellow ring above a small purple triangle",
    "a picture of a pink cross on a black background",
    "a large orange triangle right of a small cyan circle",
    "a small blue star below a large green ring on a gray background",
    "a red square",
    "a large purple circle on a brown background",
)
_SCALE, _LINE = 3, 30


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True))
@click.option("-o", "--out", type=click.Path(path_type=Path), default=None, help="Folder for the pictures [<bundle>-pictures].")
@click.option("--seed", default=7, show_default=True)
def main(bundle: Path, out: Path | None, seed: int) -> None:
    """Draw a few prompts with a bundle."""
    out = out or bundle.with_name(f"{bundle.name}-pictures")
    out.mkdir(parents=True, exist_ok=True)
    with Pipeline.open(bundle) as pipeline:
        start = time.perf_counter()
        pictures = pipeline.generate(list(PROMPTS), seed=seed)
        seconds = time.perf_counter() - start
    for prompt, picture in zip(PROMPTS, pictures, strict=True):
        save([picture], out / f"{prompt.replace(' ', '-')}.png")
    sheet = sheet_of(pictures, PROMPTS)
    sheet.save(out / "sheet.png")
    print(f"{len(pictures)} pictures in {seconds:.1f} s, in {out}/; all on one page: {out / 'sheet.png'}")


def sheet_of(pictures: list[Image.Image], prompts: tuple[str, ...], columns: int = 4) -> Image.Image:
    """Arrange pictures in rows, each enlarged, above its prompt."""
    width, height = (length * _SCALE for length in pictures[0].size)
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (width + 8) + 8, rows * (height + _LINE + 8) + 8), "white")
    pen = ImageDraw.Draw(sheet)
    for index, (picture, prompt) in enumerate(zip(pictures, prompts, strict=True)):
        left, top = 8 + index % columns * (width + 8), 8 + index // columns * (height + _LINE + 8)
        sheet.paste(picture.resize((width, height), Image.Resampling.NEAREST), (left, top))
        pen.multiline_text((left, top + height + 2), _folded(prompt), fill="black", spacing=1)
    return sheet


def _folded(text: str, length: int = 32) -> str:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= length:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


if __name__ == "__main__":
    main()

"""Draws four pictures with one of the demo's models that are steered by pictures, each beside the picture that steered it.

t2iexport build recipes/demo-controlnet.yaml
python -m tools.demo.draw_conditioned bundles/demo-controlnet
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from engines.pipeline import Pipeline
from tools.demo.conditioned import Case
from tools.demo.draw_sheet import sheet
from tools.demo.edges import edges
from tools.demo.scenes import Scene, Thing, draw
from tools.demo.score_conditioned import drawn, steered

_PAIR = Scene((Thing("small", "red", "circle", 14, 44), Thing("large", "blue", "square", 42, 20)), "white", "left of")
_STAR = Scene((Thing("large", "yellow", "star", 46, 44),), "black")
_ONE = Scene((Thing("large", "cyan", "triangle", 24, 30),), "black")
_BOTH = Scene((Thing("large", "purple", "ring", 18, 20), Thing("small", "orange", "cross", 46, 46)), "brown", "left of")
EDGES = (
    (_PAIR, "a red circle left of a blue square on white"),
    (_PAIR, "a green circle left of a pink square on black"),
    (_STAR, "a yellow star on a black background"),
    (_BOTH, "a purple ring left of an orange cross"),
)
"""Scenes whose edges are given, and what the prompt says of colours."""
EDITS = ((_ONE, "make it red"), (_STAR, "make it a circle"), (_PAIR, "make the background gray"), (_BOTH, "make it a star"))
"""Scenes that are given as they are, and the instruction."""


def rows(bundle: Path, seed: int) -> tuple[list[np.ndarray], list[str]]:
    """What steers and what is drawn, uint8 (64, 64, 3), in turn, and what stands below each."""
    with Pipeline.open(bundle) as pipeline:
        control = steered(pipeline)
        cases = [
            Case(text, edges(draw(scene)) if control else draw(scene), "", scene) for scene, text in (EDGES if control else EDITS)
        ]
        found = drawn(pipeline, cases, seed)
    pictures, told = list[np.ndarray](), list[str]()
    for case, picture in zip(cases, found, strict=True):
        pictures += [case.given, picture]
        told += ["edges" if control else "a picture", case.text]
    return pictures, told


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, exists=True))
@click.option("--output", type=click.Path(path_type=Path), default=Path("docs/images/demo-controlnet.png"), show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(bundle: Path, output: Path, seed: int) -> None:
    """Draws with BUNDLE, which has a ControlNet or edits; nothing is picked by hand."""
    pictures, told = rows(bundle, seed)
    output.parent.mkdir(parents=True, exist_ok=True)
    sheet(np.stack(pictures), tuple(told), columns=len(told)).save(output, optimize=True)
    click.echo(output)


if __name__ == "__main__":
    main()

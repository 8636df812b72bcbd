"""Changes of a scene that an instruction asks for: what the demo's editing model learns, and what it is held to."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tools.demo.scenes import BACKGROUNDS, COLOURS, HELD_OUT, SHAPES, Scene, sample_scene

EVALUATION_STREAM = 12
_KINDS = ("colour", "colour", "shape", "shape", "background")
"""What is changed, each as often as it stands here."""


@dataclass(frozen=True)
class Edit:
    """A scene, an instruction, and the scene that it makes of it.

    Attributes:
        before: The scene that is given.
        text: The instruction, such as "make it red".
        after: The scene that is asked for: everything else stays as it is.
        changed: What is changed: "colour", "shape" or "background".

    """

    before: Scene
    text: str
    after: Scene
    changed: str


def _pick(rng: np.random.Generator, options: Sequence[str], present: Collection[str]) -> str:
    left = [each for each in options if each not in present]
    return left[int(rng.integers(len(left)))]


def edit(scene: Scene, rng: np.random.Generator) -> Edit:
    """An instruction for a scene, and what it makes of it; never a pair of colour and shape that training holds out.

    "It" is whatever stands in the picture: of two objects both are changed.
    """
    changed, things = _KINDS[int(rng.integers(len(_KINDS)))], scene.things
    if changed == "background":
        ground = _pick(rng, list(BACKGROUNDS), {scene.background})
        return Edit(scene, f"make the background {ground}", replace(scene, background=ground), changed)
    if changed == "colour":
        held = {colour for colour, shape in HELD_OUT if shape in {each.shape for each in things}}
        colour = _pick(rng, list(COLOURS), held | {each.colour for each in things})
        text, things = f"make it {colour}", tuple(replace(each, colour=colour) for each in things)
    else:
        held = {shape for colour, shape in HELD_OUT if colour in {each.colour for each in things}}
        shape = _pick(rng, SHAPES, held | {each.shape for each in things})
        text, things = f"make it a {shape}", tuple(replace(each, shape=shape) for each in things)
    return Edit(scene, text, replace(scene, things=things), changed)


def evaluation_edits(per_kind: int) -> list[Edit]:
    """Fixed edits that training never reads: `per_kind` of scenes with one object, then as many of two."""
    found = []
    for index in range(2 * per_kind):
        rng = np.random.default_rng((EVALUATION_STREAM, index))
        found.append(edit(sample_scene(rng, 1 if index < per_kind else 2), rng))
    return found

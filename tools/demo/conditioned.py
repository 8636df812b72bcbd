"""What the demo's models that are steered by pictures are asked, and whether a picture is what was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tools.demo.captions import caption, parse
from tools.demo.check_scene import Reading, agrees, read
from tools.demo.edges import edges
from tools.demo.edits import Edit, evaluation_edits
from tools.demo.scenes import Scene, draw, sample_scene

CONTROL_STREAM = 13
NEAR = 2.5
"""Farthest that an object's centre may be from where it belongs, in pixels."""
TRAITS = ("size", "colour", "shape")


@dataclass(frozen=True)
class Case:
    """One picture to draw.

    Attributes:
        text: The prompt.
        given: The picture that steers, uint8 (64, 64, 3).
        group: "single" or "two".
        wanted: The scene that is to come out.
        edit: What it is made of and by which instruction; None of edges.

    """

    text: str
    given: np.ndarray
    group: str
    wanted: Scene
    edit: Edit | None = None


def _group(scene: Scene) -> str:
    return "single" if len(scene.things) == 1 else "two"


def edge_cases(per_kind: int) -> list[Case]:
    """Captions and the edges of their scenes: `per_kind` of one object, then as many of two. Training never reads their seeds."""
    found = []
    for index in range(2 * per_kind):
        rng = np.random.default_rng((CONTROL_STREAM, index))
        scene = sample_scene(rng, 1 if index < per_kind else 2)
        found.append(Case(caption(scene, rng), edges(draw(scene)), _group(scene), scene))
    return found


def edit_cases(per_kind: int) -> list[Case]:
    """Instructions and the scenes that they change, `per_kind` of one object, then as many of two."""
    return [Case(each.text, draw(each.before), _group(each.before), each.after, each) for each in evaluation_edits(per_kind)]


def _differences(reading: Reading, scene: Scene) -> set[str] | None:
    """What of a scene is otherwise in a picture: "background" and traits of objects; None where an object is not in its place."""
    if reading.fault is not None or len(reading.objects) != len(scene.things):
        return None
    found = set() if reading.background == scene.background else {"background"}
    for thing in scene.things:
        near = [seen for seen in reading.objects if np.hypot(seen.x - thing.x, seen.y - thing.y) <= NEAR]
        if not near:
            return None
        found |= {trait for trait in TRAITS if getattr(near[0], trait) != getattr(thing, trait)}
    return found


def verdict(picture: np.ndarray, case: Case) -> Mapping[str, bool]:
    """Whether a picture does what its case asks.

    Of edges: `stated`, it shows what the prompt states, wherever; `placed`, shapes and sizes are where the edges are. Of an
    edit: `done`, the instruction was followed; `kept`, all else is as it was. `right` is both.
    """
    reading = read(picture)
    differs = _differences(reading, case.wanted)
    if case.edit is None:
        placed = differs is not None and not differs & {"size", "shape"}
        found = {"stated": agrees(reading, parse(case.text)), "placed": placed}
    else:
        done = differs is not None and case.edit.changed not in differs
        found = {"done": done, "kept": differs is not None and differs <= {case.edit.changed}}
    return found | {"right": all(found.values())}


def counted(verdicts: Sequence[Mapping[str, bool]]) -> dict[str, int]:
    """How many pictures are so, under each name."""
    return {name: sum(each[name] for each in verdicts) for name in verdicts[0]}

"""Captions of scenes: writing them, reading them back, and the evaluation prompts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tools.demo.scenes import BACKGROUNDS, COLOURS, SHAPES, SIZES, Scene, pairs, sample_scene

EVALUATION_STREAM = 2
HELD_OUT_SHARE = 0.1
"""Share of held-out pairs among the single-object evaluation prompts."""


@dataclass(frozen=True)
class Statement:
    """What a caption says of a scene; None stands for "left unsaid".

    Attributes:
        objects: (size or None, colour, shape) of each object, in order.
        background: A key of ``BACKGROUNDS`` or None.
        relation: A key of ``RELATIONS``, or None for a single object.

    """

    objects: tuple[tuple[str | None, str, str], ...]
    background: str | None = None
    relation: str | None = None


@dataclass(frozen=True)
class Prompt:
    """An evaluation prompt and the group it is reported in."""

    text: str
    group: str


_OPENINGS = ("", "", "", "a picture of ", "an image of ", "a drawing of ")
_BACKGROUND_FORMS = (" on a {} background", " on {}", " in front of a {} background")
_RELATION_FORMS = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}


def _with_article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """Describes a scene in one of several phrasings.

    Sizes and the background are each left out about half the time; colours,
    shapes and the relation are always said.
    """
    said = []
    for thing in scene.things:
        words = f"{thing.colour} {thing.shape}"
        said.append(_with_article(f"{thing.size} {words}" if rng.random() < 0.5 else words))
    text = said[0]
    if scene.relation is not None:
        forms = _RELATION_FORMS[scene.relation]
        text = f"{said[0]} {forms[int(rng.integers(len(forms)))]} {said[1]}"
    text = _OPENINGS[int(rng.integers(len(_OPENINGS)))] + text
    if rng.random() < 0.5:
        form = _BACKGROUND_FORMS[int(rng.integers(len(_BACKGROUND_FORMS)))]
        text += form.format(scene.background)
    return text


def words() -> list[str]:
    """Every word that a caption can hold, sorted."""
    text = " ".join(
        [
            *COLOURS, *BACKGROUNDS, *SHAPES, *SIZES, *_OPENINGS, "a an",
            *(form.replace("{}", "") for form in _BACKGROUND_FORMS),
            *(form for forms in _RELATION_FORMS.values() for form in forms),
        ]
    )  # fmt: skip
    return sorted(set(text.split()))


def _either(options: Iterable[str]) -> str:
    """A pattern for one of several words; longer ones first, as none may hide another."""
    return "|".join(sorted(options, key=len, reverse=True))


_OBJECT = rf"an? (?:({_either(SIZES)}) )?({_either(COLOURS)}) ({_either(SHAPES)})"
_RELATION_OF = {form: name for name, forms in _RELATION_FORMS.items() for form in forms}
_GRAMMAR = re.compile(
    rf"(?:an? (?:picture|image|drawing) of )?{_OBJECT}"
    rf"(?: ({_either(_RELATION_OF)}) {_OBJECT})?"
    rf"(?: (?:on|in front of) (?:a )?({_either(BACKGROUNDS)})(?: background)?)?"
)


def parse(text: str) -> Statement:
    """Reads a caption back into what it states.

    Raises:
        ValueError: If the text is not of the form that ``caption`` writes.

    """
    found = _GRAMMAR.fullmatch(text.strip().lower())
    if found is None:
        raise ValueError(f"not a caption of a scene: {text!r}")
    part = found.groups()
    objects = [(part[0], part[1], part[2])]
    if part[3] is not None:
        objects.append((part[4], part[5], part[6]))
    return Statement(tuple(objects), part[7], _RELATION_OF.get(part[3] or ""))


def evaluation_prompts(per_kind: int = 500) -> list[Prompt]:
    """The fixed evaluation prompts: ``per_kind`` single-object, then as many of two objects.

    Among the single-object prompts every tenth is of a held-out pair and goes
    in the group "held-out"; the others are in "single" and "two".  The prompts
    come from a stream of seeds which training never reads.
    """
    unseen = pairs(held_out=True)
    every = round(1 / HELD_OUT_SHARE)
    prompts = []
    for index in range(2 * per_kind):
        rng = np.random.default_rng((EVALUATION_STREAM, index))
        group = "two"
        allowed = None
        if index < per_kind:
            group = "single"
            if index % every == 0:
                group, allowed = "held-out", [unseen[index // every % len(unseen)]]
        scene = sample_scene(rng, 2 if group == "two" else 1, allowed)
        prompts.append(Prompt(caption(scene, rng), group))
    return prompts

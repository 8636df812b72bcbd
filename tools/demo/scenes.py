"""Scenes of coloured shapes: sampling and drawing them.

A scene is one object anywhere in a 64 x 64 pixel picture, or two objects in a
relation.  Everything is drawn here, so the demo model's training data carries
no third-party rights and can be produced again from seeds alone.

The vocabulary (colour table, shape names, sizes, relations) is shared with
``tools.demo.check_scene``; the drawing is not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

SIDE = 64
"""Width and height of a picture, in pixels."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 25, 30),
    "orange": (250, 135, 10),
    "yellow": (245, 225, 35),
    "green": (25, 150, 45),
    "cyan": (35, 205, 225),
    "blue": (30, 60, 215),
    "purple": (125, 35, 165),
    "pink": (250, 130, 190),
}
"""Object colours, sRGB 0..255."""

BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "black": (0, 0, 0),
    "gray": (128, 128, 128),
    "brown": (95, 60, 30),
}
"""Background colours, sRGB 0..255."""

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
SIZES: dict[str, int] = {"small": 16, "large": 28}
"""Side of the square box that an object fills, in pixels."""

RELATIONS: dict[str, tuple[int, int]] = {
    "left of": (-1, 0),
    "right of": (1, 0),
    "above": (0, -1),
    "below": (0, 1),
}
"""Direction from the second object to the first; y grows downwards."""

HELD_OUT = frozenset(
    {
        ("red", "star"),
        ("blue", "ring"),
        ("green", "square"),
        ("yellow", "cross"),
        ("pink", "triangle"),
    }
)
"""Colour and shape pairs which never occur in training (5 of 48)."""

TRAINING_STREAM = 1
SHARE_OF_SINGLES = 0.4

_EDGE = 1.0
_GAP = 4.0
_SIDEWAYS = 7.0
_SUPERSAMPLE = 8


@dataclass(frozen=True)
class Thing:
    """One object of a scene.

    Attributes:
        size: A key of ``SIZES``.
        colour: A key of ``COLOURS``.
        shape: One of ``SHAPES``.
        x: Centre, pixels from the left edge.
        y: Centre, pixels from the top edge.

    """

    size: str
    colour: str
    shape: str
    x: float
    y: float


@dataclass(frozen=True)
class Scene:
    """One or two objects on a plain background.

    Attributes:
        things: The objects; the first is the subject of the relation.
        background: A key of ``BACKGROUNDS``.
        relation: Where the first object is, seen from the second (a key of
            ``RELATIONS``), or None for a single object.

    """

    things: tuple[Thing, ...]
    background: str
    relation: str | None = None


def pairs(*, held_out: bool) -> list[tuple[str, str]]:
    """Lists the (colour, shape) pairs that are, or are not, held out."""
    every = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    return [pair for pair in every if (pair in HELD_OUT) == held_out]


def _pick(rng: np.random.Generator, options: list[tuple[str, str]] | list[str]) -> object:
    return options[int(rng.integers(len(options)))]


def _place_two(rng: np.random.Generator, sizes: tuple[str, str], relation: str) -> np.ndarray:
    """Places two boxes in a relation; returns their centres, shape (2, 2) in pixels."""
    halves = np.array([SIZES[size] / 2 for size in sizes])
    axis = 0 if RELATIONS[relation][0] else 1
    low, high = halves + _EDGE, SIDE - halves - _EDGE
    first_is_lower = sum(RELATIONS[relation]) < 0
    near, far = (0, 1) if first_is_lower else (1, 0)
    distance = halves.sum() + _GAP
    centres = np.zeros((2, 2))
    centres[near, axis] = rng.uniform(low[near], high[far] - distance)
    centres[far, axis] = rng.uniform(centres[near, axis] + distance, high[far])
    across = 1 - axis
    centres[near, across] = rng.uniform(low[near], high[near])
    centres[far, across] = rng.uniform(
        max(low[far], min(centres[near, across] - _SIDEWAYS, high[far])),
        min(high[far], max(centres[near, across] + _SIDEWAYS, low[far])),
    )
    return centres


def sample_scene(rng: np.random.Generator, count: int, allowed: list[tuple[str, str]] | None = None) -> Scene:
    """Samples a scene of one or two objects.

    Args:
        rng: Source of randomness; the scene depends on nothing else.
        count: Number of objects, 1 or 2.
        allowed: (colour, shape) pairs to choose from; the pairs seen in
            training when None.

    """
    allowed = pairs(held_out=False) if allowed is None else allowed
    sizes = tuple(str(_pick(rng, list(SIZES))) for _ in range(count))
    background = str(_pick(rng, list(BACKGROUNDS)))
    chosen = [allowed[i] for i in rng.choice(len(allowed), size=count, replace=False)]
    relation = None
    if count == 1:
        half = SIZES[sizes[0]] / 2 + _EDGE
        centres = rng.uniform(half, SIDE - half, size=(1, 2))
    else:
        relation = str(_pick(rng, list(RELATIONS)))
        centres = _place_two(rng, (sizes[0], sizes[1]), relation)
    things = tuple(
        Thing(size, colour, shape, float(x), float(y))
        for size, (colour, shape), (x, y) in zip(sizes, chosen, centres, strict=True)
    )
    return Scene(things, background, relation)


def training_scene(seed: int) -> Scene:
    """The training scene of a seed: 40% single objects, 60% pairs of objects."""
    rng = np.random.default_rng((TRAINING_STREAM, seed))
    return sample_scene(rng, 1 if rng.random() < SHARE_OF_SINGLES else 2)


def _outline(shape: str) -> list[tuple[float, float]]:
    """Corners of a polygonal shape in the unit box, (0, 0) at the top left."""
    third = 1 / 3
    if shape == "square":
        return [(0, 0), (1, 0), (1, 1), (0, 1)]
    if shape == "triangle":
        return [(0.5, 0), (1, 1), (0, 1)]
    if shape == "cross":
        a, b = third, 2 * third
        return [
            (a, 0), (b, 0), (b, a), (1, a), (1, b), (b, b),
            (b, 1), (a, 1), (a, b), (0, b), (0, a), (a, a),
        ]  # fmt: skip
    if shape == "star":
        points = []
        for corner in range(10):
            radius = 1.0 if corner % 2 == 0 else 0.45
            angle = math.pi * (corner / 5 - 0.5)
            points.append((radius * math.cos(angle), radius * math.sin(angle)))
        spread = np.ptp(np.array(points), axis=0)
        start = np.min(np.array(points), axis=0)
        return [((x - start[0]) / spread[0], (y - start[1]) / spread[1]) for x, y in points]
    raise ValueError(f"{shape!r} is not a polygon; expected square, triangle, cross or star")


def coverage(shape: str, size: int, x: float, y: float, side: int = SIDE) -> np.ndarray:
    """Share of each pixel that an object covers, float32 (side, side) in 0..1; x and y are the middle of its box."""
    factor = _SUPERSAMPLE
    left, top = x - size / 2, y - size / 2
    column, row = math.floor(left), math.floor(top)
    patch = size + 2
    mask = Image.new("L", (patch * factor, patch * factor), 0)
    pen = ImageDraw.Draw(mask)
    # One is taken off the far edges because PIL fills the last pixel as well.
    shift_x, shift_y = (left - column) * factor, (top - row) * factor
    span = size * factor - 1

    def box(inset: float) -> list[float]:
        far = span * (1 - inset)
        near = span * inset
        return [shift_x + near, shift_y + near, shift_x + far, shift_y + far]

    if shape in {"circle", "ring"}:
        pen.ellipse(box(0), fill=255)
        if shape == "ring":
            pen.ellipse(box(0.25), fill=0)
    else:
        corners = [(shift_x + across * span, shift_y + down * span) for across, down in _outline(shape)]
        pen.polygon(corners, fill=255)
    small = np.asarray(mask.reduce(factor), dtype=np.float32) / 255
    padded = np.zeros((side + patch, side + patch), np.float32)
    padded[row : row + patch, column : column + patch] = small
    return padded[:side, :side]


def draw(scene: Scene) -> np.ndarray:
    """Draws a scene, antialiased.

    Returns:
        uint8 array (SIDE, SIDE, 3), sRGB.

    """
    picture = np.empty((SIDE, SIDE, 3), np.float32)
    picture[:] = BACKGROUNDS[scene.background]
    for thing in scene.things:
        cover = coverage(thing.shape, SIZES[thing.size], thing.x, thing.y)[..., None]
        picture += cover * (np.array(COLOURS[thing.colour], np.float32) - picture)
    return np.round(picture).astype(np.uint8)

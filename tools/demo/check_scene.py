"""Reads a picture of a scene and checks it against a caption.

The reading is deterministic and shares only the vocabulary with
``tools.demo.scenes``: colours are found by nearest table entry, shapes by fitting
this file's own outlines, sizes by the fitted width.  Anything in the picture
that is not a clear object makes the reading a fault, so stray marks, merged
objects and half-formed shapes are not accepted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tools.demo.captions import Statement, parse
from tools.demo.scenes import BACKGROUNDS, COLOURS, RELATIONS

_LEAST_BACKGROUND = 0.4
"""Share of the picture that must be near its background colour."""
_BACKGROUND_REACH = 40.0
_COLOUR_REACH = 46.0
"""Farthest an object may be from its table colour: half of the least distance."""
_MIXTURE_REACH = 40.0
"""Farthest that a patch may be, on average, from mixtures of background and paint."""
_SPECK = 8.0
"""Covered pixels below which a patch is taken for a speck of noise."""
_LEAST_FIT = 0.75
_LEAST_LEAD = 0.02
"""How well a shape must fit, and by how much better than any other shape."""
_SIZE_RANGES = {"small": (12.5, 19.5), "large": (24.0, 32.5)}
_DOMINANCE = 1.4
"""How much farther apart along a relation's axis than across it."""


@dataclass(frozen=True)
class Seen:
    """One object found in a picture.

    Attributes:
        size: "small" or "large".
        colour: Name of the colour.
        shape: Name of the shape.
        x: Centre of its box, pixels from the left.
        y: Centre of its box, pixels from the top.
        fit: Overlap with the ideal shape, 0..1.

    """

    size: str
    colour: str
    shape: str
    x: float
    y: float
    fit: float


@dataclass(frozen=True)
class Reading:
    """What a picture shows.

    Attributes:
        objects: The objects, largest patch first.
        background: Name of the background colour, or None.
        fault: Why the picture is not a clear scene, or None.

    """

    objects: tuple[Seen, ...]
    background: str | None
    fault: str | None = None


def _inside(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Whether points of the box -1..1 are in a shape; v grows downwards."""
    if shape == "circle":
        return u * u + v * v <= 1
    if shape == "ring":
        squared = u * u + v * v
        return (squared <= 1) & (squared >= 0.25)
    if shape == "square":
        return np.maximum(abs(u), abs(v)) <= 1
    if shape == "triangle":
        return (abs(u) <= (v + 1) / 2) & (v <= 1)
    if shape == "cross":
        return (np.minimum(abs(u), abs(v)) <= 1 / 3) & (np.maximum(abs(u), abs(v)) <= 1)
    # A star: fold each point into one tenth of the turn, then compare with the
    # line from a tip (radius 1) to a notch (radius 0.45).  The box of a unit
    # star is 2 sin 72 degrees wide and 1 + cos 36 degrees high.
    tall = 1 + np.cos(np.pi / 5)
    x = u * np.sin(2 * np.pi / 5)
    y = (v + 1) / 2 * tall - 1
    angle = np.arctan2(x, -y)
    folded = abs((angle + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
    radius = np.hypot(x, y)
    notch = 0.45
    limit = notch * np.sin(np.pi / 5) / (
        np.sin(folded) * (1 - notch * np.cos(np.pi / 5))
        + np.cos(folded) * notch * np.sin(np.pi / 5)
    )  # fmt: skip
    return radius <= limit


_KINDS = ("circle", "square", "triangle", "star", "cross", "ring")


@lru_cache(maxsize=len(_KINDS))
def _facts(shape: str) -> tuple[float, float]:
    """Share of its box that a shape fills, and how far below the middle its centroid is."""
    grid = (np.arange(400) + 0.5) / 200 - 1
    inside = _inside(shape, grid[None, :], grid[:, None])
    return float(inside.mean()), float((inside * grid[:, None]).sum() / inside.sum())


def _ideal(shape: str, side: float, x: float, y: float, rows: int, columns: int) -> np.ndarray:
    """Coverage (rows, columns) of an ideal shape, from 5 x 5 points per pixel."""
    points = 5
    across = ((np.arange(columns * points) + 0.5) / points - x) * 2 / side
    down = ((np.arange(rows * points) + 0.5) / points - y) * 2 / side
    inside = _inside(shape, across[None, :], down[:, None])
    return inside.reshape(rows, points, columns, points).mean((1, 3))


@dataclass(frozen=True)
class _Fit:
    """How well a kind of shape fits: overlap 0..1, side and centre in pixels."""

    overlap: float
    kind: str
    side: float
    x: float
    y: float


def _fit(kind: str, cover: np.ndarray, scale: float) -> _Fit:
    """Lays a shape of a patch's area, times a scale, over the patch's coverage."""
    filled, drop = _facts(kind)
    area = float(cover.sum())
    rows, columns = cover.shape
    side = float(np.sqrt(area / filled)) * scale
    x = float(cover.sum(0) @ (np.arange(columns) + 0.5)) / area
    y = float(cover.sum(1) @ (np.arange(rows) + 0.5)) / area - drop * side / 2
    ideal = _ideal(kind, side, x, y, rows, columns)
    common = float(np.minimum(ideal, cover).sum())
    return _Fit(common / (area + float(ideal.sum()) - common), kind, side, x, y)


def _best_fits(cover: np.ndarray) -> list[_Fit]:
    """The two best fits, best first; only they are tried at other scales too."""
    plain = sorted((_fit(kind, cover, 1.0) for kind in _KINDS), key=lambda fit: -fit.overlap)
    best = []
    for fit in plain[:2]:
        tried = [fit, *(_fit(fit.kind, cover, scale) for scale in (0.95, 1.06))]
        best.append(max(tried, key=lambda each: each.overlap))
    return sorted(best, key=lambda fit: -fit.overlap)


def _patches(mask: np.ndarray) -> list[np.ndarray]:
    """Connected patches (8 neighbours) of a mask, as masks."""
    left = mask.copy()
    rows, columns = mask.shape
    found = []
    for start in zip(*np.nonzero(mask), strict=True):
        if not left[start]:
            continue
        patch = np.zeros_like(mask)
        left[start] = False
        todo = [start]
        while todo:
            row, column = todo.pop()
            patch[row, column] = True
            for r in range(max(row - 1, 0), min(row + 2, rows)):
                for c in range(max(column - 1, 0), min(column + 2, columns)):
                    if left[r, c]:
                        left[r, c] = False
                        todo.append((r, c))
        found.append(patch)
    return found


def _grown(mask: np.ndarray) -> np.ndarray:
    """A mask and all of its neighbours."""
    padded = np.pad(mask, 1)
    rows, columns = mask.shape
    parts = [padded[r : r + rows, c : c + columns] for r in range(3) for c in range(3)]
    return np.logical_or.reduce(parts)


def _see(pixels: np.ndarray, background: np.ndarray, patch: np.ndarray) -> Seen | str | None:
    """Names one patch: an object, None for a speck, or why it is no object."""
    offset = np.linalg.norm(pixels - background, axis=-1)
    core = patch & (offset >= np.quantile(offset[patch], 0.6))
    paint = np.median(pixels[core], axis=0)
    towards = paint - background
    length = float(towards @ towards)
    cover = np.clip((pixels - background) @ towards / max(length, 1.0), 0, 1)
    cover = np.where(_grown(_grown(patch)), cover, 0)
    if cover.sum() < _SPECK:
        return None
    mixed = background + cover[..., None] * towards
    if np.linalg.norm(pixels - mixed, axis=-1)[patch].mean() > _MIXTURE_REACH:
        return "an object of several colours"
    table = np.array(list(COLOURS.values()), dtype=float)
    away = np.linalg.norm(table - paint, axis=1)
    if away.min() > _COLOUR_REACH:
        return "an object of no known colour"
    rows, columns = np.flatnonzero(cover.any(1)), np.flatnonzero(cover.any(0))
    top, left = int(rows[0]), int(columns[0])
    best, second = _best_fits(cover[top : rows[-1] + 1, left : columns[-1] + 1])
    if best.overlap < _LEAST_FIT or best.overlap - second.overlap < _LEAST_LEAD:
        both = [f"{fit.kind} fits {fit.overlap:.2f}" for fit in (best, second)]
        return f"an unclear shape ({', '.join(both)})"
    sizes = [name for name, (low, high) in _SIZE_RANGES.items() if low <= best.side <= high]
    if not sizes:
        return f"an object of no known size ({best.kind} {best.side:.1f} wide)"
    colour = list(COLOURS)[int(away.argmin())]
    return Seen(sizes[0], colour, best.kind, best.x + left, best.y + top, best.overlap)


def read(picture: np.ndarray) -> Reading:
    """Reads a picture.

    Args:
        picture: uint8 array (64, 64, 3), sRGB.

    """
    pixels = np.asarray(picture, dtype=float)
    grounds = np.array(list(BACKGROUNDS.values()), dtype=float)
    away = np.linalg.norm(pixels[:, :, None] - grounds, axis=-1)
    near = away < _BACKGROUND_REACH
    shares = near.mean((0, 1))
    chosen = int(shares.argmax())
    if shares[chosen] < _LEAST_BACKGROUND:
        return Reading((), None, "no clear background")
    name = list(BACKGROUNDS)[chosen]
    ground = pixels[near[..., chosen]].mean(0)
    table = np.array(list(COLOURS.values()), dtype=float)
    to_objects = np.linalg.norm(pixels[:, :, None] - table, axis=-1).min(-1)
    other = to_objects < np.linalg.norm(pixels - ground, axis=-1)
    objects: list[Seen] = []
    for patch in sorted(_patches(other), key=lambda part: -int(part.sum())):
        seen = _see(pixels, ground, patch)
        if isinstance(seen, str):
            return Reading(tuple(objects), name, seen)
        if seen is not None:
            objects.append(seen)
    return Reading(tuple(objects), name)


def _relation_holds(relation: str | None, first: Seen, second: Seen) -> bool:
    if relation is None:
        return True
    dx, dy = RELATIONS[relation]
    along = (first.x - second.x) * dx + (first.y - second.y) * dy
    across = abs((first.x - second.x) * dy) + abs((first.y - second.y) * dx)
    return along > _DOMINANCE * across


def _as_stated(seen: Seen, stated: tuple[str | None, str, str]) -> bool:
    size, colour, shape = stated
    return (colour, shape) == (seen.colour, seen.shape) and size in {None, seen.size}


def agrees(reading: Reading, statement: Statement) -> bool:
    """Whether a reading shows all that is stated, and no more objects."""
    if reading.fault is not None or len(reading.objects) != len(statement.objects):
        return False
    if statement.background not in {None, reading.background}:
        return False
    for order in (reading.objects, reading.objects[::-1]):
        stated = all(map(_as_stated, order, statement.objects))
        if stated and _relation_holds(statement.relation, order[0], order[-1]):
            return True
    return False


def matches(picture: np.ndarray, caption: str) -> bool:
    """Whether a picture shows what a caption states; the unsaid is not checked."""
    return agrees(read(picture), parse(caption))

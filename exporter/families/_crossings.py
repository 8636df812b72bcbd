"""What of a step is made of pictures alone: computed once a picture, by a part of its own, and fed to the denoiser by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from engines.errors import UnsupportedError
from engines.signature import Dim
from exporter.families._origins import DRAW, Origins, origins

if TYPE_CHECKING:
    from exporter.families._facts import Survey
    from exporter.recipe.schema import Shapes

#: The latent's sides, which lengths of crossings are multiples of.
SIDES = ("latent_height", "latent_width")


@dataclass(frozen=True)
class Crossing:
    """One tensor of the pictures' side with which the step's side is computed.

    Attributes:
        name: of the port.
        rows: how many of the pipeline's rows are one picture's; all pictures of a branch follow each other.
        shape: behind them.
        dtype: as the pipeline has it.

    """

    name: str
    rows: int
    shape: tuple[Dim, ...]
    dtype: torch.dtype

    @property
    def port_shape(self) -> tuple[Dim, ...]:
        """Of the port, a picture's rows being an axis of its own."""
        return ("batch", *([self.rows] if self.rows > 1 else []), *self.shape)


@dataclass(frozen=True)
class Conditions:
    """The pictures' side of a step.

    Attributes:
        crossings: in the order in which the step first takes them.
        components: networks that compute in it, in order.
        begun: networks that have begun to compute when the last of them is taken.
        pictures: names of the inputs that it is made of.
        draw: which of the pipeline's noises it is made of; None: of none.

    """

    crossings: tuple[Crossing, ...]
    components: tuple[str, ...]
    begun: tuple[str, ...]
    pictures: tuple[str, ...]
    draw: int | None


def conditions(survey: Survey, shapes: Shapes, factor: int) -> Conditions:
    """Follow the pipeline at some of a recipe's sizes.

    Raises:
        UnsupportedError: a tensor that crosses has sides that are no multiples of the latent's.

    """
    if not survey.pictures:
        return Conditions((), (), (), (), None)
    height, width = shapes.height[1], shapes.width[1]
    sizes = {"batch": (2, height, width)}
    other = [next((each for each in lengths if each != lengths[1]), None) for lengths in (shapes.height, shapes.width)]
    sizes |= {SIDES[0]: (1, other[0], width)} if other[0] else {}
    sizes |= {SIDES[1]: (1, height, other[1])} if other[1] else {}
    seen, used, begun = _followed(survey, (1, height, width))
    at = {name: _followed(survey, size, begun)[0] for name, size in sizes.items()}
    made = frozenset[str]().union(*map(origins, seen))
    cells = {
        side: (length // factor, (far or length) // factor)
        for side, length, far in zip(SIDES, (height, width), other, strict=True)
    }
    found, taken = [], list[str]()
    for number, tensor in enumerate(seen):
        own = "_".join((*(each for each in survey.pictures if each in origins(tensor)), "condition"))
        taken.append(own)
        name = own if taken.count(own) == 1 else f"{own}_{taken.count(own)}"
        lengths = {each: tuple(tensors[number].shape) for each, tensors in at.items()}
        found.append(_crossing(name, tensor, lengths, cells, survey.name))
    draws = sorted(int(each.removeprefix(DRAW)) for each in made if each.startswith(DRAW))
    if len(draws) > 1:
        raise UnsupportedError(f"{survey.name} draws {len(draws)} noises for its pictures, and one is fed.")
    pictures = tuple(name for name in survey.pictures if name in made)
    return Conditions(tuple(found), tuple(used), tuple(begun), pictures, draws[0] if draws else None)


def _followed(
    survey: Survey, size: tuple[int, int, int], asked_of: Sequence[str] | None = None
) -> tuple[list[Tensor], list[str], list[str]]:
    """What crosses at a size, the components with which it was computed, and those that had begun by the last of it."""
    seen: dict[int, Tensor] = {}
    begun: dict[str, list[str]] = {}
    before: list[str] = []
    owners = {
        id(value): name
        for name, network in survey.pipeline.components.items()
        if isinstance(network, nn.Module)
        for value in (*network.parameters(), *network.buffers())
    }

    def crossing(number: int, tensor: Tensor) -> Tensor:
        if number not in seen:
            seen[number] = tensor
            before[:] = begun.get("begun", [])
        return tensor

    watch = Origins(crossing, owners=owners)
    survey.follow(watch, begun, size, asked_of)
    return list(seen.values()), watch.used, before


def _crossing(
    name: str, tensor: Tensor, lengths: Mapping[str, Sequence[int]], cells: Mapping[str, tuple[int, int]], where: str
) -> Crossing:
    shape: list[Dim] = []
    for axis, length in enumerate(tensor.shape):
        changed = [each for each, other in lengths.items() if len(other) != tensor.ndim or other[axis] != length]
        own, far = cells.get(changed[0], (1, 2)) if changed else (1, 1)
        fits = len(changed) <= 1 and length % own == 0 and (not changed or lengths[changed[0]][axis] * own == length * far)
        if not fits or (axis == 0) != (changed == ["batch"]):
            told = ", ".join(f"{list(other)} for another {each}" for each, other in lengths.items())
            raise UnsupportedError(
                f"{where} makes {list(tensor.shape)} of its pictures, {told}, which is no multiple of the latent's sides.\n"
                "  A recipe of one size has none of these lengths open."
            )
        factor = length // own
        shape.append(length if not changed else changed[0] if factor == 1 else f"{factor}*{changed[0]}")
    return Crossing(name, int(tensor.shape[0]), tuple(shape[1:]), tensor.dtype)

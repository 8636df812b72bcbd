"""What of a step is made of pictures alone: computed once a picture, by a part of its own, and fed to the denoiser by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from engines.errors import UnsupportedError
from engines.signature import Dim
from exporter.families.tracing import whole_numbers
from exporter.families.tracing.following import dry_run
from exporter.families.tracing.following.origins import DRAW, Origins, origins, owners
from exporter.families.tracing.pictures import own_noise

if TYPE_CHECKING:
    from exporter.families.tracing.facts import Survey
    from exporter.recipe.schema import Shapes

#: The latent's sides, which lengths of crossings are multiples of.
SIDES = ("latent_height", "latent_width")


@dataclass(frozen=True)
class Crossing:
    """One tensor of the pictures' side with which the step's side is computed.

    Attributes:
        name: of the port.
        rows: how many of the pipeline's rows are one picture's; all pictures of a branch follow each other.
        shape: behind them, of the port.
        dtype: as the pipeline has it.
        fold: cells of the latent, along a side, to one of the tensor's: the port has as many times fewer channels, and the
            latent's sides. 0: the port has the tensor's own shape.
        listed: whether the tensor has its cells in one axis before the channels, row by row.

    """

    name: str
    rows: int
    shape: tuple[Dim, ...]
    dtype: torch.dtype
    fold: int = 0
    listed: bool = False

    def folded(self, made: Tensor, width: Any) -> Tensor:  # noqa: ANN401 - an open length
        """The port's value of the pipeline's tensor, for a latent of that width."""
        made = made.float()
        if self.listed:
            made = made.transpose(1, 2).unflatten(2, (made.shape[1] // (width // self.fold), width // self.fold))
        return dry_run.as_pictures(functional.pixel_shuffle(made, self.fold) if self.fold else made, self.rows)

    def unfolded(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        """The pipeline's tensor of the port's value."""
        rows = dry_run.as_rows(value, self.rows)
        made = functional.pixel_unshuffle(rows, self.fold) if self.fold else rows
        return (made.flatten(2).transpose(1, 2) if self.listed else made).to(dtype)

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
        pictures: names of the inputs that it is made of; so are numbers, and noise that is no latent's, in `fed`.
        draw: which of the pipeline's noises it is made of; None: of none.

    """

    crossings: tuple[Crossing, ...]
    components: tuple[str, ...]
    begun: tuple[str, ...]
    pictures: tuple[str, ...]
    draw: int | None
    fed: tuple[str, ...] = ()

    def channels(self, survey: Survey) -> int:
        """Channels of that noise, 0 where there is none; of one of other sides as if it had the latent's, row by row.

        Raises:
            UnsupportedError: it has more than the latent's, or those of no whole number of channels.

        """
        if self.draw is None:
            return 0
        count, cells = (math.prod(shape) for shape in (dry_run.flat(survey.noises[self.draw], survey.name), survey.latent[1:]))
        if count % cells or count // cells > survey.latent[0]:
            raise UnsupportedError(f"{survey.name} draws noise for its pictures that is larger than its latent's, or odd.")
        return count // cells


def conditions(survey: Survey, shapes: Shapes, factor: int) -> Conditions:
    """Follow the pipeline at some of a recipe's sizes.

    Raises:
        UnsupportedError: a tensor that crosses has sides that are no multiples of the latent's.

    """
    if not survey.pictures:
        return Conditions((), (), (), (), None)
    height, width = shapes.height[1], shapes.width[1]
    several = shapes.batch[2] > 1 and not survey.lone  # some pipelines take pictures of one prompt alone
    sizes = {"batch": (2, height, width)} if several else {}
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
    found, taken, fed = [], list[str](), (*whole_numbers.levels(survey.pipeline), own_noise.NOISE)
    for number, tensor in enumerate(seen):
        shown = [each for each in survey.pictures if each in origins(tensor)]
        own = "_".join((*(shown or [each for each in fed if each in origins(tensor)]), "condition"))
        taken.append(own)
        name = own if taken.count(own) == 1 else f"{own}_{taken.count(own)}"
        lengths = {each: tuple(tensors[number].shape) for each, tensors in at.items()}
        found.append(_crossing(name, tensor, lengths, cells, survey.name))
    draws = sorted(int(each.removeprefix(DRAW)) for each in made if each.startswith(DRAW))
    if len(draws) > 1:
        raise UnsupportedError(f"{survey.name} draws {len(draws)} noises for its pictures, and one is fed.")
    pictures = tuple(name for name in survey.pictures if name in made)
    fed = tuple(name for name in fed if name in made)
    return Conditions(tuple(found), tuple(used), tuple(begun), pictures, draws[0] if draws else None, fed)


def _followed(
    survey: Survey, size: tuple[int, int, int], asked_of: Sequence[str] | None = None
) -> tuple[list[Tensor], list[str], list[str]]:
    """What crosses at a size, the components with which it was computed, and those that had begun by the last of it."""
    seen: dict[int, Tensor] = {}
    begun: dict[str, list[str]] = {}
    before: list[str] = []

    def crossing(number: int, tensor: Tensor) -> Tensor:
        if number not in seen:
            seen[number] = tensor
            before[:] = begun.get("begun", [])
        return tensor

    watch = Origins(crossing, owners=owners(survey.pipeline))
    survey.follow(watch, begun, size, asked_of)
    return list(seen.values()), watch.used, before


def _crossing(
    name: str, tensor: Tensor, lengths: Mapping[str, Sequence[int]], cells: Mapping[str, tuple[int, int]], where: str
) -> Crossing:
    """What a tensor crosses as; `lengths` are its own at other sizes, and `cells` the latent's, at its own and at the other."""
    rows = int(tensor.shape[0])
    if "batch" not in lengths or tuple(lengths["batch"]) == (2 * rows, *tensor.shape[1:]):
        shape = _multiples(tensor.shape, lengths, cells)
        if shape is not None:
            return Crossing(name, rows, shape, tensor.dtype)
        for fold in (1, 2, 4, 8):
            for listed in (False, True):
                channels = tensor.shape[-1 if listed else 1] // fold**2
                wanted = {"": [cells[side][0] for side in SIDES]}
                wanted |= {side: [cells[each][each == side] for each in SIDES] for side in SIDES if side in lengths}
                if channels and all(
                    tuple({"": tensor.shape, **lengths}[at]) == _folded(rows, channels, sides, fold, listed=listed)
                    for at, sides in wanted.items()
                ):
                    return Crossing(name, rows, (channels, *SIDES), tensor.dtype, fold, listed)
    told = ", ".join(f"{list(other)} for another {each}" for each, other in lengths.items())
    raise UnsupportedError(
        f"{where} makes {list(tensor.shape)} of its pictures, {told}, which is no multiple of the latent's sides.\n"
        "  A recipe of one size has none of these lengths open."
    )


def _folded(rows: int, channels: int, sides: Sequence[int], fold: int, *, listed: bool) -> tuple[int, ...]:
    """Shape of a tensor that has one cell for so many of the latent's; empty where there is none."""
    if any(side % fold for side in sides):
        return ()
    height, width = (side // fold for side in sides)
    deep = channels * fold**2
    return (rows, height * width, deep) if listed else (rows, deep, height, width)


def _multiples(
    own: Sequence[int], lengths: Mapping[str, Sequence[int]], cells: Mapping[str, tuple[int, int]]
) -> tuple[Dim, ...] | None:
    """Lengths behind the batch, each a number or a multiple of one of the latent's sides; None where one is not."""
    shape: list[Dim] = []
    for axis, length in list(enumerate(own))[1:]:
        changed = [side for side in SIDES if side in lengths and lengths[side][axis] != length]
        if not changed:
            shape.append(length)
            continue
        here, there = cells[changed[0]]
        if len(changed) > 1 or length % here or lengths[changed[0]][axis] * here != length * there:
            return None
        shape.append(changed[0] if length == here else f"{length // here}*{changed[0]}")
    return tuple(shape)

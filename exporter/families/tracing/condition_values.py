"""What a pipeline's own code makes of pictures for its steps: what a condition part is held to."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from exporter.families.tracing import played_parts, whole_numbers
from exporter.families.tracing.following import dry_run, own_start
from exporter.families.tracing.following.dry_run import Leaf, Play
from exporter.families.tracing.following.origins import DRAW, STEP, Origins, marked
from exporter.families.tracing.following.standins import Stepped
from exporter.families.tracing.pictures import image_arguments, own_noise
from exporter.families.tracing.pipelines.scales import steering

if TYPE_CHECKING:
    from exporter.families.tracing.facts import Survey
    from exporter.families.tracing.steps.crossings import Conditions


class Conditioned(Protocol):
    """A family that knows a survey of its pipeline, and what of its steps is made of pictures alone."""

    survey: Survey

    @property
    def conditions(self) -> Conditions:
        """What of a step is made of pictures alone."""
        ...

    @property
    def factor(self) -> int:
        """Pixels to a side of a cell of the latent."""
        ...

    @property
    def arguments(self) -> Mapping[str, Any]:
        """Arguments of the pipeline's call beside prompts, size, steps and guidance."""
        ...


def condition_values(
    family: Conditioned,
    pipeline: Any,  # noqa: ANN401 - of diffusers
    fed: Mapping[str, np.ndarray],
    noise: np.ndarray,
) -> dict[str, np.ndarray]:
    """Run a pipeline up to its first step, and keep what it made of its pictures.

    Args:
        family: that follows it.
        pipeline: with its networks in memory.
        fed: by input pictures, uint8 (B, height, width, channels), numbers, int64 (B,), and noise of its own for pictures.
        noise: what else it draws for them, where it does.

    Returns:
        float32 by port, the pictures as it prepares them among them; nothing where no step takes any of pictures alone.

    """
    survey, about = family.survey, family.conditions
    if not about.crossings:
        return {}
    pictures = {name: own for name, own in fed.items() if name in survey.pictures}
    numbers = {name: torch.from_numpy(own.copy()) for name, own in fed.items() if own.ndim == 1}
    count = len(next(iter(pictures.values())))
    sizes = (own.shape[1:3] for name, own in pictures.items() if survey.own_sides(name) is None)
    size = next(sizes, None)
    height, width = survey.size if size is None else (side * survey.enlarges for side in size)
    found: dict[str, Tensor] = {}
    shown: dict[str, Any] = image_arguments.in_hand(pictures, survey.shared)
    names = {id(image): name for name, own in shown.items() for image in own}
    kept = list[Image.Image]()
    plain = {name for name, about in survey.prepared.items() if about.map} | (shown.keys() - survey.prepared)
    for name in plain:  # what no processor prepares is taken as numbers too
        found[name] = torch.from_numpy(pictures[name].astype(np.float32) / 255)
        shown[name] = marked(found[name].permute(0, 3, 1, 2), name)

    def note(image: Any, made: Tensor) -> Tensor:  # noqa: ANN401 - as the pipeline hands it on
        name = names[id(image[0])]
        found[name] = made.permute(0, 2, 3, 1)
        return marked(made, name)

    def resized(images: Any, made: list[Image.Image]) -> None:  # noqa: ANN401 - as the pipeline hands them on
        name, (width, height) = names[id(images[0])], made[0].size
        names.update({id(each): name for each in made})
        kept.extend(made)  # for nothing else shall have their ids
        ports = survey.views.get(name, {})
        for port in (port for port, view in ports.items() if view.sides == (height, width)):
            found[port] = torch.from_numpy(np.stack([np.asarray(each, np.float32) / 255 for each in made]))

    def crossing(number: int, made: Tensor) -> Tensor:
        own = about.crossings[number]
        found.setdefault(own.name, own.folded(made, width // family.factor))
        return made

    def draw(shape: Sequence[Any]) -> Tensor:
        number = next(drawn)
        if number == survey.drawn:
            return marked(torch.zeros(tuple(shape)), STEP)
        own = noise[:, : about.channels(survey)]
        return marked(torch.from_numpy(own.copy()).reshape(tuple(shape)), f"{DRAW}{number}")

    drawn, own = itertools.count(), fed.get(own_noise.NOISE)
    drawing = own_noise.beside(draw, None if own is None else torch.from_numpy(own.copy()))
    play = Play(pipeline, drawing, marked(torch.zeros(count), STEP), Origins(crossing, "pictures"), leveled=survey.leveled)
    play.place(**image_arguments.noting(pipeline, note, resized), **survey.unasked(pipeline, but=about.begun))
    leaves = (leaf for each in survey.conditioning for leaf in each if isinstance(leaf, Leaf))
    zeros = {leaf.name: torch.zeros(count, *leaf.seen_shape) for leaf in leaves}
    encoded = played_parts.restored(survey, zeros, torch.float32)
    play.encode_by(dry_run.replayed(encoded))
    asked = {**family.arguments, **played_parts.prompted(pipeline, survey, encoded, count), **survey.others}
    asked |= whole_numbers.given(pipeline, count, numbers)
    asked |= steering(pipeline, survey.mode, survey.scale) | survey.called_by(image_arguments.piled(shown, piles=survey.piles))
    asked |= own_start.blank(pipeline, count, height, width)
    with contextlib.suppress(Stepped):
        play(**asked, height=height, width=width, num_inference_steps=1)
    noise = noise if about.draw is None else noise[:, : about.channels(survey)]
    made = {name: value.numpy().copy() for name, value in found.items()}
    made |= {name: np.repeat(made[name], count, axis=0) for name in survey.shared}
    return {"noise": noise, **made}

"""Whole numbers that users feed a pipeline: a class in the place of a prompt, as DiT has, or a level of noise, as upscalers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from engines.inputs import Input
from exporter.families.tracing.following import dry_run
from exporter.families.tracing.following.origins import STEP, marked
from exporter.families.tracing.pipelines.own_prior import has_own_prior

#: diffusers' word for the argument that is a class of each picture, and the name of the input.
LABELS = "class_labels"
#: diffusers' word for how much noise a picture is given, and what a scheduler is called that adds it to an embedding.
_LEVEL, _NOISING = "noise_level", "noising_scheduler"
#: Fields of a network's config that hold the number of its classes.
_FIELDS = ("num_class_embeds", "num_embeds_ada_norm")


def classes(pipeline: Any) -> int:  # noqa: ANN401 - of diffusers
    """How many classes a pipeline draws; 0 where it asks for none."""
    if LABELS not in dry_run.arguments(pipeline):
        return 0
    configs: list[Any] = [each.config for each in pipeline.components.values() if isinstance(each, torch.nn.Module)]
    return next((int(config[name]) for config in configs for name in _FIELDS if config.get(name)), 0)


def levels(pipeline: Any) -> dict[str, tuple[int, int]]:  # noqa: ANN401
    """Arguments of a pipeline's call of which it knows the largest: their defaults and that, from 0 on."""
    takes = {name: about.default for name, about in dry_run.arguments(pipeline).items() if type(about.default) is int}
    most = {name: _most(pipeline, name) for name in takes}
    return {name: (min(takes[name], most[name]), most[name]) for name in takes if isinstance(most[name], int)}


def noising(pipeline: Any) -> set[str]:  # noqa: ANN401
    """The schedulers among its components that say how much noise a level is, or by which a first stage is sampled."""
    asked = levels(pipeline) or has_own_prior(pipeline)
    return {name for name in pipeline.components if name.endswith("_scheduler")} if asked else set()


def _most(pipeline: Any, name: str) -> Any:  # noqa: ANN401 - None of what is no level
    """The largest level: as the pipeline's config has it, or the last time of the scheduler that adds so much noise."""
    if has_own_prior(pipeline):
        return None  # what its first stage leaves is noised there, which knows no inputs but noise
    found = pipeline.config.get(f"max_{name}")
    noising = [each for part, each in pipeline.components.items() if part.endswith(_NOISING)]
    return noising[0].config.num_train_timesteps - 1 if found is None and noising and name == _LEVEL else found


def given(pipeline: Any, count: Any, values: Mapping[str, Tensor]) -> dict[str, Any]:  # noqa: ANN401 - an open length
    """Arguments of the pipeline's call that are such numbers, int64 (count,) each: those of `values`, else class 0 or level 0.

    A class is the step's; a level, of the noise in a picture, is of the pictures' side.
    """
    sides = {**({LABELS: STEP} if classes(pipeline) else {}), **{name: name for name in levels(pipeline)}}
    zeros = torch.zeros(count, dtype=torch.int64)
    return {name: marked(values[name] if name in values else zeros.clone(), side) for name, side in sides.items()}


def as_called(pipeline: Any, fed: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ANN401
    """Numbers, int64 (count,) by input, as diffusers takes them: a class of each picture, and one level for all of a call."""
    ones = levels(pipeline)
    return {name: int(own[0]) if name in ones else own.tolist() for name, own in fed.items()}


def entries(pipeline: Any) -> dict[str, Input]:  # noqa: ANN401 - of diffusers
    """What a bundle asks of its users for them."""
    name, found = type(pipeline).__name__, dict[str, Input]()
    if count := classes(pipeline):
        about = f"class of the picture, as {name} counts them"
        found[LABELS] = Input(kind="integer", shape=("batch",), minimum=0, maximum=count - 1, about=about)
    for each, (usual, most) in levels(pipeline).items():
        found[each] = Input(
            kind="integer", shape=("batch",), minimum=0, maximum=most, default=usual, about=f"{each.replace('_', ' ')} of {name}"
        )
    return found

"""Whole numbers that users feed a pipeline: a class in the place of a prompt, as DiT has, or a level of noise, as upscalers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from engines.inputs import Input
from exporter.families.tracing.following import dry_run
from exporter.families.tracing.following.origins import STEP, marked

#: diffusers' word for the argument that is a class of each picture, and the name of the input.
LABELS = "class_labels"
#: Fields of a network's config that hold the number of its classes.
_FIELDS = ("num_class_embeds", "num_embeds_ada_norm")


def classes(pipeline: Any) -> int:  # noqa: ANN401 - of diffusers
    """How many classes a pipeline draws; 0 where it asks for none."""
    if LABELS not in dry_run.arguments(pipeline):
        return 0
    configs: list[Any] = [each.config for each in pipeline.components.values() if isinstance(each, torch.nn.Module)]
    return next((int(config[name]) for config in configs for name in _FIELDS if config.get(name)), 0)


def levels(pipeline: Any) -> dict[str, tuple[int, int]]:  # noqa: ANN401
    """Arguments of a pipeline's call of which its config knows the largest: their defaults and that, from 0 on."""
    takes = {name: about.default for name, about in dry_run.arguments(pipeline).items() if type(about.default) is int}
    most = {name: pipeline.config.get(f"max_{name}") for name in takes}
    return {name: (min(takes[name], most[name]), most[name]) for name in takes if isinstance(most[name], int)}


def given(pipeline: Any, count: Any, values: Mapping[str, Tensor]) -> dict[str, Any]:  # noqa: ANN401 - an open length
    """Arguments of the pipeline's call that are such numbers, int64 (count,) each: those of `values`, else class 0 or level 0."""
    names = [*([LABELS] if classes(pipeline) else []), *levels(pipeline)]
    return {name: marked(values[name] if name in values else torch.zeros(count, dtype=torch.int64), STEP) for name in names}


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

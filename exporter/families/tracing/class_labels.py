"""Pipelines that draw what a class says, such as DiT: the label is an input that users feed, in the place of a prompt."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from engines.inputs import Input
from exporter.families.tracing import dry_run
from exporter.families.tracing.origins import STEP, marked

#: diffusers' word for the argument, and the name of the input.
LABELS = "class_labels"
#: Fields of a network's config that hold the number of its classes.
_FIELDS = ("num_class_embeds", "num_embeds_ada_norm")


def classes(pipeline: Any) -> int:  # noqa: ANN401 - of diffusers
    """How many classes a pipeline draws; 0 where it asks for none."""
    if LABELS not in dry_run.arguments(pipeline):
        return 0
    configs: list[Any] = [each.config for each in pipeline.components.values() if isinstance(each, torch.nn.Module)]
    return next((int(config[name]) for config in configs for name in _FIELDS if config.get(name)), 0)


def labelled(pipeline: Any, count: Any, labels: Tensor | None = None) -> dict[str, Any]:  # noqa: ANN401 - an open length
    """Arguments of the pipeline's call that say the classes, int64 (count,): those that are given, else the first."""
    if not classes(pipeline):
        return {}
    return {LABELS: marked(torch.zeros(count, dtype=torch.int64) if labels is None else labels, STEP)}


def entries(pipeline: Any) -> dict[str, Input]:  # noqa: ANN401 - of diffusers
    """What a bundle asks of its users for it."""
    count = classes(pipeline)
    about = f"class of the picture, as {type(pipeline).__name__} counts them"
    return {LABELS: Input(kind="integer", shape=("batch",), minimum=0, maximum=count - 1, about=about)} if count else {}

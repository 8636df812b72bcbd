"""A ControlNet that lies alone, put beside the model that it steers. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from engines.errors import RecipeError
from exporter.models import config_types
from exporter.models.checkpoint import Checkpoint

#: What a pipeline calls its ControlNet, and how diffusers' names of their classes show that they are one.
COMPONENT = "controlnet"
_CLASS = re.compile(r"\w*(ControlNet(?:Union)?)Model")


def is_control(config: Mapping[str, Any]) -> bool:
    """Whether a network's config is a ControlNet's."""
    return _CLASS.fullmatch(str(config.get("_class_name"))) is not None


def beside(base: Checkpoint, config: Mapping[str, Any], files: tuple[Path, ...], name: str) -> Checkpoint:
    """A model with a ControlNet, under the pipeline that diffusers has for both.

    Its name is made as diffusers makes it: `StableDiffusionXLPipeline` with a `ControlNetModel` is
    `StableDiffusionXLControlNetPipeline`.

    Args:
        base: the model that is steered.
        config: of the ControlNet.
        files: its weights.
        name: how the recipe calls it, for the message.

    Raises:
        RecipeError: the model has a ControlNet already.
        UnsupportedError: a value of the config is of a type that diffusers does not take.

    """
    index, kind = base.configs["model_index"], str(config["_class_name"])
    about = _CLASS.sub(r"\1", kind)
    if COMPONENT in index:
        raise RecipeError(
            f"model.source: {name} is a ControlNet, and model.base has one already; name a model without it as base"
        )
    config_types.refuse_types(COMPONENT, config, name)
    steered = f"{index['_class_name'].removesuffix('Pipeline')}{about}Pipeline"
    return replace(
        base,
        configs={
            **base.configs,
            COMPONENT: config,
            "model_index": {**index, "_class_name": steered, COMPONENT: ["diffusers", kind]},
        },
        files={**base.files, COMPONENT: files},
    )

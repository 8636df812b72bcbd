"""A ControlNet that lies alone, put beside the model that it steers. Imports no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from engines.errors import RecipeError
from exporter.models import config_types
from exporter.models.checkpoint import Checkpoint

#: What a pipeline calls its ControlNet, and how diffusers' names of their classes show that they are one.
COMPONENT = "controlnet"
_CLASS = re.compile(r"\w*(ControlNet(?:Union)?)Model")
#: What a ControlNet has in common with the network that it steers: how wide texts are, and what it adds to.
_SHARED = ("block_out_channels", "layers_per_block", "joint_attention_dim", "caption_projection_dim", "pooled_projection_dim")
_TEXTS = "cross_attention_dim"


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
        RecipeError: the model has a ControlNet already, or this one is of another model.
        UnsupportedError: a value of the config is of a type that diffusers does not take.

    """
    index, kind = base.configs["model_index"], str(config["_class_name"])
    about = _CLASS.sub(r"\1", kind)
    if COMPONENT in index:
        raise RecipeError(
            f"model.source: {name} is a ControlNet, and model.base has one already; name a model without it as base"
        )
    config_types.refuse_types(COMPONENT, config, name)
    if problems := list(_differences(base, config, name)):
        raise RecipeError(problems)
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


def _differences(base: Checkpoint, config: Mapping[str, Any], name: str) -> Iterator[str]:
    """How the network that a ControlNet was trained beside differs from the base's, a sentence each."""
    network = next(each for each in ("unet", "transformer") if each in base.configs)
    reads = any("CrossAttn" in kind for kind in config.get("down_block_types", ()))
    for field in (*_SHARED, *([_TEXTS] if reads else [])):
        own, other = (json.dumps(each.get(field)) for each in (config, base.configs[network]))
        if "null" not in (own, other) and own != other:
            yield (
                f"model.source: {name} is a ControlNet of another model: its {field} is {own}, and that of model.base's "
                f"{network} {other}; name the base that it was trained with"
            )

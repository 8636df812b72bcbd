"""Weights of one component out of a single file, in the original (ldm) layout or with diffusers' names under a prefix."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from diffusers.loaders import single_file_utils as ldm
from torch import Tensor, nn

from engines.errors import UnsupportedError
from exporter.models import weights

_Tensors = dict[str, Tensor]
#: Component → where the original layouts keep it.
_PREFIXES = {
    "unet": ("model.diffusion_model.",),
    "vae": ("first_stage_model.",),
    "text_encoder": ("cond_stage_model.", "conditioner.embedders.0."),
    "text_encoder_2": ("conditioner.embedders.1.",),
}
#: What an OpenCLIP tower has beside the tower that the pipelines use; SD 2 stops one layer early and leaves out the projection.
_UNUSED = ("logit_scale", "position_ids", "text_projection", *ldm.SD_2_TEXT_ENCODER_KEYS_TO_IGNORE)


def component(file: Path, name: str, skeleton: nn.Module, config: Mapping[str, Any]) -> dict[str, Callable[[], Tensor]]:
    """Weights of one component under diffusers' names.

    Raises:
        UnsupportedError: the file has no such component, or weights that its converter does not know.

    """
    tensors = weights.opened(file)
    if own := [key for key in tensors if key.startswith(f"{name}.")]:
        return {key.removeprefix(f"{name}."): tensors[key] for key in own}
    prefixes = _PREFIXES.get(name, ())
    source = {key: get() for key, get in tensors.items() if key.startswith(prefixes)} if prefixes else {}
    if not source:
        raise UnsupportedError(
            f"{file} has no {name}: no weights start with {' or '.join((*prefixes, name + '.'))}.\n"
            "  It holds part of a model only; convert the whole to a diffusers folder."
        )
    try:
        converted = _converted(name, source, skeleton, config)
    except (KeyError, IndexError, AttributeError) as error:
        raise UnsupportedError(
            f"{file}: {name} does not follow the original layout ({type(error).__name__}: {error}).\n"
            "  Check model.architecture, or convert the file to a diffusers folder."
        ) from error
    _nothing_left(file, name, source, converted)
    return {key: lambda value=value: value for key, value in converted.items()}


def _converted(name: str, source: _Tensors, skeleton: nn.Module, config: Mapping[str, Any]) -> _Tensors:
    if name == "unet":
        return ldm.convert_ldm_unet_checkpoint(source, dict(config))
    if name == "vae":
        return ldm.convert_ldm_vae_checkpoint(source, dict(config))
    openclip = next((key.split("transformer.resblocks.")[0] for key in source if "transformer.resblocks." in key), None)
    if openclip is None:
        return ldm.convert_ldm_clip_checkpoint(source)
    converted = ldm.convert_open_clip_checkpoint(skeleton, source, prefix=openclip)
    if not any(key.startswith("text_projection") for key in skeleton.state_dict()):
        converted.pop("text_projection.weight", None)
    return converted


def _nothing_left(file: Path, name: str, source: _Tensors, converted: _Tensors) -> None:
    """Every weight of the source must have gone somewhere: converters drop in silence what they do not know."""
    used = {value.data_ptr() for value in converted.values()}
    split = (".in_proj_weight", ".in_proj_bias")  # cut into q, k and v, hence copied
    left = sorted(key for key, value in source.items() if value.data_ptr() not in used and not key.endswith((*split, *_UNUSED)))
    if left:
        raise UnsupportedError(
            f"{file}: {len(left)} weights of {name} have no place in the model: {', '.join(left[:12])}.\n"
            "  Check model.architecture, or convert the file to a diffusers folder."
        )

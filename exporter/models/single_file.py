"""Weights of one network out of a single file, alone or among others, in the original (ldm, sgm) layout or diffusers' own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from diffusers.loaders import single_file_utils as ldm
from torch import Tensor, nn

from engines.errors import UnsupportedError
from exporter.models import kinds, leftovers, statements, weights

_Tensors = dict[str, Tensor]
_Getters = dict[str, Callable[[], Tensor]]
#: A scale that fp8 weights are multiplied by, as ComfyUI spells it: behind a layer's name.
_SCALES = ("scale_weight", "weight_scale")
#: Where the converters of diffusers expect a network.
_CANONICAL = {"unet": "model.diffusion_model.", "vae": "first_stage_model."}
#: SD 2's pipelines stop one layer before the end of its tower, and read no projection.
_LAST = frozenset(ldm.SD_2_TEXT_ENCODER_KEYS_TO_IGNORE)
#: diffusers' names of a VAE's attention, which some merges have in the original layout → the original ones.
_ATTENTION = {".to_q.": ".q.", ".to_k.": ".k.", ".to_v.": ".v.", ".to_out.0.": ".proj_out."}


def component(file: Path, name: str, skeleton: nn.Module, config: Mapping[str, Any]) -> _Getters:
    """Weights of one component under diffusers' names.

    Args:
        file: safetensors.
        name: the component; `vae_decoder` and `vae_encoder` are read as `vae`.
        skeleton: the network that they shall fill.
        config: its config.

    Raises:
        UnsupportedError: the file has no such component, or weights that its converter does not know.

    """
    name = "vae" if name.startswith("vae") else name
    start, own = _own(file, name)
    own = _scaled(file, own)
    wanted = set(skeleton.state_dict())
    if 2 * sum(key in wanted or f"text_model.{key}" in wanted for key in own) > len(own):
        return own
    source = {key: get() for key, get in own.items() if name not in _CANONICAL or not leftovers.harmless(key)}
    try:
        converted = _converted(name, source, skeleton, config)
    except (KeyError, IndexError, AttributeError) as error:
        raise UnsupportedError(
            f"{file}: {name} does not follow the original layout ({type(error).__name__}: {error}).\n"
            "  Set model.architecture to what it is, or convert the file to a diffusers folder where its config is known."
        ) from error
    _nothing_left(file, name, start, source, converted)
    return {key: lambda value=value: value for key, value in converted.items()}


def _own(file: Path, name: str) -> tuple[str, _Getters]:
    """What the component's weights start with, and they without that; of a file with one network alone, all of them."""
    tensors = {key: get for key, get in weights.opened(file).items() if not statements.MARKERS.fullmatch(key)}
    start = leftovers.start(name, tensors)
    own = {key.removeprefix(start): get for key, get in tensors.items() if key.startswith(start) and key not in _LAST}
    if start and own:
        return start, own
    if not any(key.startswith(start) for key in tensors for start in leftovers.STARTS):
        return "", tensors
    told = kinds.of_file(dict.fromkeys(tensors, ()), {})
    starts = " or ".join((f"{name}.", *leftovers.PREFIXES.get(name, ())))
    known = f"; it is {told.name}" if told else ""
    raise UnsupportedError(f"{file} has no {name}: no weights start with {starts}{known}.\n  Take a file that has one.")


def _scaled(file: Path, own: _Getters) -> _Getters:
    """The same with the scales of fp8 weights multiplied in."""
    found = dict(own)
    for key in own:
        layer, _, last = key.rpartition(".")
        if last in _SCALES and f"{layer}.weight" in own:
            del found[key]
            found[f"{layer}.weight"] = lambda layer=layer, key=key: _multiplied(own[f"{layer}.weight"](), own[key]())
        elif last == "comfy_quant":
            told = json.loads(bytes(own[key]().tolist())).get("format", "")
            if not told.startswith("float8"):
                raise UnsupportedError(kinds.PACKED.sentence(file, f"{key} says {told!r}"))
            del found[key]
    return found


def _multiplied(weight: Tensor, scale: Tensor) -> Tensor:
    scale = scale.float()
    if scale.ndim == 1 and scale.numel() > 1:  # one for every output
        scale = scale.reshape(-1, *[1] * (weight.ndim - 1))
    return weight.float() * (scale.reshape(()) if scale.numel() == 1 else scale)


def _converted(name: str, source: _Tensors, skeleton: nn.Module, config: Mapping[str, Any]) -> _Tensors:
    if name == "unet":
        return ldm.convert_ldm_unet_checkpoint({_CANONICAL[name] + key: value for key, value in source.items()}, dict(config))
    if name == "vae":
        spelled = {_CANONICAL[name] + _original(key): value for key, value in source.items()}
        return ldm.convert_ldm_vae_checkpoint(spelled, dict(config))
    openclip = next((key.split("transformer.resblocks.")[0] for key in source if "transformer.resblocks." in key), None)
    if openclip is None:
        return {key.removeprefix("transformer."): value for key, value in source.items()}
    # Saved as a linear layer's, the projection is the other way round.
    for key in [key for key in source if key.endswith("text_projection.weight")]:
        source[key.removesuffix(".weight")] = source.pop(key).T.contiguous()
    converted = ldm.convert_open_clip_checkpoint(skeleton, source, prefix=openclip)
    if not any(key.startswith("text_projection") for key in skeleton.state_dict()):
        converted.pop("text_projection.weight", None)
    return converted


def _original(key: str) -> str:
    """A VAE's name in the original layout, its attention spelled so too."""
    if ".attn_1." in key:
        for new, old in _ATTENTION.items():
            key = key.replace(new, old)
    return key


def _nothing_left(file: Path, name: str, start: str, source: _Tensors, converted: _Tensors) -> None:
    """Every weight of the source must have gone somewhere: converters drop in silence what they do not know."""
    used = {value.data_ptr() for value in converted.values()}
    split = ("in_proj_weight", "in_proj_bias", "text_projection")  # cut into q, k and v, or turned: hence copied
    unused = (key for key, value in source.items() if value.data_ptr() not in used and not key.endswith(split))
    left = sorted(start + key for key in unused if not leftovers.harmless(key))
    if left:
        raise UnsupportedError(
            f"{file}: {len(left)} weights of {name} have no place in the model: {leftovers.brief(left)}.\n"
            "  If nothing depends on them, save the file without them; else model.architecture is another than its own."
        )

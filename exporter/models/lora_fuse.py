"""LoRAs into weights, once and for all; every weight of a LoRA must find its place.

diffusers' converters give the names. The sum is ours: where layers of a kohya file differ in alpha, diffusers 0.42 with peft 0.21
ignores those of attention layers, and its loaders leave out in silence what they do not know.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from diffusers.loaders import StableDiffusionXLLoraLoaderMixin as Loader
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from diffusers.utils import convert_state_dict_to_diffusers, convert_state_dict_to_peft, convert_unet_state_dict_to_peft
from torch import Tensor, nn

from engines.errors import UnsupportedError
from exporter.models import safetensors_header, weights
from exporter.models.lora import Lora, refuse_left

_Tensors = dict[str, Tensor]
_HALF = re.compile(r"(?P<layer>.+)\.lora_(?P<half>[AB])\.weight")


def fuse(module: nn.Module, component: str, loras: Sequence[Lora], unet: Mapping[str, Any]) -> nn.Module:
    """Add every LoRA's change, scale * alpha / rank * B @ A, to a network's weights; float32 in, float32 out.

    Args:
        module: the network, without gradients.
        component: its name in the pipeline.
        loras: those that change it.
        unet: config of the pipeline's UNet, whose blocks kohya's files number.

    Raises:
        UnsupportedError: a weight of a LoRA that has no place here, or another shape than its place.

    """
    for lora in loras:
        state = _converted(lora, unet)
        for name, layer, a, b in _pairs(module, component, lora, _peft_names(module, component, state)):
            change = (b.flatten(1).double() @ a.flatten(1).double()).reshape(layer.weight.shape)
            factor = lora.scale * _strength(lora, component, name, rank=len(a))
            # Not in place: the weight may be a file that is mapped into memory.
            layer.weight = nn.Parameter((layer.weight + factor * change).to(layer.weight.dtype), requires_grad=False)
    return module


def _converted(lora: Lora, unet: Mapping[str, Any]) -> _Tensors:
    """Weights under diffusers' names; of kohya's files, B times alpha / rank."""
    source = {name: get() for name, get in weights.opened(lora.file).items()}
    scaled = {name: value for name, value in source.items() if not _kohya_alpha(name, source)}
    for name in source.keys() - scaled.keys():
        stem = name.removesuffix(".alpha")
        rank = len(source[f"{stem}.lora_down.weight"])
        scaled[f"{stem}.lora_up.weight"] = source[f"{stem}.lora_up.weight"].float() * (source[name].item() / rank)
    config = SimpleNamespace(layers_per_block=unet.get("layers_per_block", 2))
    try:
        state = Loader.lora_state_dict(dict(scaled), unet_config=config)[0]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise UnsupportedError(
            f"{lora.file} is not a LoRA in the format of diffusers, peft or kohya ({type(error).__name__}: {error}).\n"
            "  Save it with diffusers' save_lora_weights."
        ) from error
    kept = {value.data_ptr() for value in state.values()}
    refuse_left(lora.file, sorted(name for name, value in scaled.items() if value.data_ptr() not in kept))
    return state


def _kohya_alpha(name: str, source: _Tensors) -> bool:
    stem = name.removesuffix(".alpha")
    return stem != name and {f"{stem}.lora_down.weight", f"{stem}.lora_up.weight"} <= source.keys()


def _peft_names(module: nn.Module, component: str, state: _Tensors) -> _Tensors:
    """One network's weights, named as peft names them: `layer.lora_A.weight`."""
    own = {name.removeprefix(f"{component}."): value for name, value in state.items() if name.startswith(f"{component}.")}
    if component == "unet":
        return own if any("lora_A" in name for name in own) else convert_unet_state_dict_to_peft(own)
    own = convert_state_dict_to_peft(convert_state_dict_to_diffusers(own))
    return own if hasattr(module, "text_model") else {name.removeprefix("text_model."): value for name, value in own.items()}


def _pairs(
    module: nn.Module, component: str, lora: Lora, own: _Tensors
) -> Iterator[tuple[str, nn.Linear | nn.Conv2d, Tensor, Tensor]]:
    """Layer by layer: its name, the layer, A (rank, inputs, …) and B (outputs, rank, …)."""
    modules, halves, left = dict(module.named_modules()), dict[str, dict[str, Tensor]](), []
    for name, value in own.items():
        half = _HALF.fullmatch(name)
        if half and isinstance(modules.get(half["layer"]), nn.Linear | nn.Conv2d):
            halves.setdefault(half["layer"], {})[half["half"]] = value
        else:
            left.append(f"{component}.{name}")
    left += [f"{component}.{name}.lora_{half}.weight" for name, pair in halves.items() for half in pair if len(pair) == 1]
    refuse_left(lora.file, left)
    for name, pair in halves.items():
        layer, a, b = modules[name], pair["A"], pair["B"]
        outputs, *inputs = layer.weight.shape
        if [*a.shape[1:]] != inputs or [*b.shape] != [outputs, len(a), *[1] * (len(inputs) - 1)]:
            raise UnsupportedError(
                f"{lora.file}: {component}.{name} has A {list(a.shape)} and B {list(b.shape)}, which do not make the model's "
                f"weight {[outputs, *inputs]}.\n  The LoRA is for another model."
            )
        for half, value in pair.items():
            if not torch.isfinite(value).all():
                raise UnsupportedError(
                    f"{lora.file}: {component}.{name}.lora_{half} has NaN or infinite values.\n  Download or copy it again."
                )
        yield name, layer, a, b


def _strength(lora: Lora, component: str, layer: str, rank: int) -> float:
    """Alpha / rank as peft wrote it into the file; 1 where it did not, since B holds kohya's alpha already."""
    written = safetensors_header.metadata(lora.file).get(LORA_ADAPTER_METADATA_KEY)
    config = {
        name.removeprefix(f"{component}."): value
        for name, value in (json.loads(written) if written else {}).items()
        if name.startswith(f"{component}.")
    }
    if not config:
        return 1.0
    if config.get("use_dora"):
        refuse_left(lora.file, [f"{component}.{layer}"])
    patterns = config.get("alpha_pattern") or {}
    alpha = next((value for key, value in patterns.items() if re.fullmatch(rf"(.*\.)?({key})", layer)), config["lora_alpha"])
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)

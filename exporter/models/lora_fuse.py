"""LoRAs into weights, once and for all; every weight of a LoRA must find its place.

Names and sums are ours: where layers of a kohya file differ in alpha, diffusers 0.42 with peft 0.21 ignores those of attention
layers, and its loaders leave out in silence what they do not know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from engines.errors import UnsupportedError
from engines.lora import spelling
from engines.lora.strength import said, strength
from exporter.models import lora_changes, weights
from exporter.models.lora import Lora, refuse_left

_Layers = dict[str, dict[str, Tensor]]


def fuse(module: nn.Module, component: str, loras: Sequence[Lora], unet: Mapping[str, Any]) -> nn.Module:
    """Add every LoRA's change, times its scale, to a network's weights; float32 in, float32 out.

    Args:
        module: the network, without gradients.
        component: its name in the pipeline.
        loras: those that change it.
        unet: config of the pipeline's UNet, whose blocks files in the original layout number.

    Raises:
        UnsupportedError: a weight of a LoRA that has no place here, or another shape than its place.

    """
    for lora in loras:
        for name, pieces in layers(module, component, lora, unet).items():
            _add(module.get_submodule(name), pieces, lora, f"{component}.{name}")
    return module


def layers(module: nn.Module, component: str, lora: Lora, unet: Mapping[str, Any]) -> _Layers:
    """Layer of a network → what a LoRA's file has of it, by what it is.

    Raises:
        UnsupportedError: weights that belong to no layer, or are not finite.

    """
    known = spelling.spellings(component, (name for name, each in module.named_modules() if hasattr(each, "weight")), unet)
    found: _Layers = {}
    left = []
    for name, get in weights.opened(lora.file).items():
        if spelling.owner(name) != component:
            continue
        layer, what = spelling.split(name) or ("", "")
        place = known.get(layer)
        if place is None or what in found.get(place, {}):
            left.append(name)
            continue
        value = get()
        if value.ndim and not value.is_floating_point():
            raise UnsupportedError(
                f"{lora.file}: {name} is of whole numbers, which mean nothing without the scales that they were quantized with.\n"
                "  Take the file in fp16, bf16, fp32 or fp8."
            )
        value = value.float()
        if not torch.isfinite(value).all():
            raise UnsupportedError(f"{lora.file}: {name} has NaN or infinite values.\n  Download or copy it again.")
        found.setdefault(place, {})[what] = value
    refuse_left(lora.file, sorted(left))
    return found


def _add(layer: Any, pieces: Mapping[str, Tensor], lora: Lora, name: str) -> None:  # noqa: ANN401 - a layer with a weight
    rank = len(pieces["down"]) if "down" in pieces and pieces["down"].ndim else 0
    try:
        component, _, place = name.partition(".")
        own = strength(lora.config, component, place, rank)
        changes = {"weight": _of_weight(layer.weight, pieces, lora, component, own), "bias": lora_changes.bias(pieces, own)}
        found = {
            what: _sum(getattr(layer, what, None), change, lora.scale) for what, change in changes.items() if change is not None
        }
    except lora_changes.UnfitError as error:
        raise UnsupportedError(f"{lora.file}: {name} {error}.\n  The LoRA is for another model.") from error
    for what, value in found.items():
        # Not in place: the weight may be a file that is mapped into memory.
        setattr(layer, what, nn.Parameter(value, requires_grad=False))


def _of_weight(before: Tensor, pieces: Mapping[str, Tensor], lora: Lora, component: str, own: float | None) -> Tensor | None:
    if "down" in pieces and said(lora.config, component).get("use_dora") and "magnitude" not in pieces:
        raise lora_changes.UnfitError("has no lora_magnitude_vector, and its config says DoRA")
    return lora_changes.weight(pieces, before, own)


def _sum(before: Tensor | None, change: Tensor, scale: float) -> Tensor:
    if before is None or before.shape != change.shape:
        there = "none" if before is None else list(before.shape)
        told = f"has a bias {list(change.shape)}, and the model's is {there}"
        raise lora_changes.UnfitError(told)
    return (before + scale * change).to(before.dtype)

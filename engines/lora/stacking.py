"""Factors of several LoRAs side by side in rank: the arrays that a network's ports take. Nobody writes to them again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engines.lora import spelling
from engines.lora.factors import Pair
from engines.lora.layers import CONV_SCALE, SCALE, LoraLayer, LoraLayers, LoraLimits, rounded
from engines.signature import still

Arrays = dict[str, np.ndarray]
#: What one LoRA has of a network: layer's name → A and B.
Factors = Mapping[str, Pair]


@dataclass(frozen=True)
class LoraTarget:
    """A network that takes LoRAs: its limits, its layers by name, and the spelling of every layer → the layer."""

    limits: LoraLimits
    layers: Mapping[str, LoraLayer]
    spelled: Mapping[str, LoraLayer]

    @classmethod
    def of(cls, component: str, limits: LoraLimits, layers: LoraLayers) -> LoraTarget:
        """Spell every layer as files do."""
        spelled = {name: layer for layer in layers.layers for name in spelling.prefixed(component, layer.spelled)}
        return cls(limits, {layer.name: layer for layer in layers.layers}, spelled)

    @property
    def taken(self) -> list[LoraLayer]:
        """Layers that have ports."""
        return [layer for layer in self.layers.values() if layer.index is not None]

    def whole(self, loras: Sequence[Factors], *, convolution: bool) -> int:
        """Length of the ranks of all LoRAs together in larger convolutions, or in the other layers."""
        if convolution:
            return self.limits.slots * self.limits.conv_rank
        return rounded(sum(self.ranks(loras, convolution=convolution)))

    def ranks(self, loras: Sequence[Factors], *, convolution: bool) -> list[int]:
        """The largest rank of each LoRA there."""
        fits = {name for name, layer in self.layers.items() if (layer.form == "convolution") is convolution}
        return [max((len(a) for name, (a, _) in own.items() if name in fits), default=0) for own in loras]


def stacked(target: LoraTarget, loras: Sequence[Factors]) -> Arrays:
    """A and B of every layer by port; zeros where no LoRA changes it, which layers of one shape share."""
    found, nothing = Arrays(), dict[tuple[int, ...], np.ndarray]()
    places = {each: _places(target, loras, convolution=each) for each in (False, True)}
    for layer in target.taken:
        starts, whole = places[layer.form == "convolution"]
        pairs = [(start, own[layer.name]) for start, own in zip(starts, loras, strict=True) if layer.name in own]
        for side, port in enumerate(layer.ports(target.limits)):
            shape = tuple(whole if isinstance(dim, str) else dim for dim in port.shape)
            if not pairs:
                found[port.name] = nothing.setdefault(shape, still(np.zeros(shape, np.float32)))
                continue
            made = np.zeros((layer.shape[0], whole) if side else (whole, *layer.shape[1:]), np.float32)
            for start, pair in pairs:
                ranks = slice(start, start + len(pair[0]))
                made[(slice(None), ranks) if side else ranks] = pair[side]
            found[port.name] = still(np.ascontiguousarray(made.T if layer.form == "rows" else made.reshape(shape)))
    return found


def scaled(target: LoraTarget, loras: Sequence[Factors], scales: Sequence[Sequence[float]]) -> Arrays:
    """What each image's LoRAs are multiplied by, float32 (images, ranks); `scales` are one list a LoRA, a number an image."""
    found = Arrays()
    for convolution in {layer.form == "convolution" for layer in target.taken}:
        starts, whole = _places(target, loras, convolution=convolution)
        made = np.zeros((len(scales[0]), whole), np.float32)
        for start, rank, own in zip(starts, target.ranks(loras, convolution=convolution), scales, strict=True):
            made[:, start : start + rank] = np.array(own, np.float32)[:, None]
        found[CONV_SCALE if convolution else SCALE] = made
    return found


def _places(target: LoraTarget, loras: Sequence[Factors], *, convolution: bool) -> tuple[list[int], int]:
    """Where each LoRA's ranks begin, and how many there are in all."""
    ranks = target.ranks(loras, convolution=convolution)
    return [sum(ranks[:index]) for index in range(len(ranks))], target.whole(loras, convolution=convolution)

"""LoRAs that are made up to check a bundle with: of every layer that takes one, the same on every machine."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence

import numpy as np

from engines.lora.factors import Pair
from engines.lora.layers import LoraLayer, LoraLimits

#: Ranks of the two; a bundle with one slot is checked with the first.
_RANKS = (3, 5)
#: Size of the change, where weights have variance 1 / inputs.
_SIZE = 0.5
#: How strongly the items of a case have each of the two: both, one alone, neither, against its direction.
_SCALES = ((1.0, 0.5), (-0.75, 0.0), (0.0, 0.0), (0.0, 1.0))


def probes(layers: Iterable[LoraLayer], limits: LoraLimits) -> list[dict[str, Pair]]:
    """One or two LoRAs: layer's name → A (rank, inputs …) and B (outputs, rank)."""
    taken = [layer for layer in layers if layer.index is not None]
    return [{layer.name: _pair(layer, number, rank) for layer in taken} for number, rank in enumerate(_RANKS[: limits.slots])]


def scales(items: int, loras: int) -> list[list[float]]:
    """A number for each item, one list a LoRA."""
    return [[_SCALES[item % len(_SCALES)][number] for item in range(items)] for number in range(loras)]


def _pair(layer: LoraLayer, number: int, rank: int) -> Pair:
    a = _uniform((rank, *layer.shape[1:]), f"{number}/a/{layer.name}") / math.sqrt(math.prod(layer.shape[1:]))
    return a, _SIZE * _uniform((layer.shape[0], rank), f"{number}/b/{layer.name}") / np.float32(math.sqrt(rank))


def _uniform(shape: Sequence[int], key: str) -> np.ndarray:
    """Numbers of variance 1, float32; numpy keeps the raw stream of a bit generator forever."""
    bits = np.random.SFC64(int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "little"))
    count = math.prod(shape)
    raw = bits.random_raw(-(-count // 4)).view(np.int16)[:count]
    return (raw.astype(np.float32) * np.float32(math.sqrt(3) / 2**15)).reshape(shape)

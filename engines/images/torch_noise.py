"""Standard normal noise as torch's CPU generator draws it, without torch, so that a seed means what it means in diffusers.

torch seeds a Mersenne Twister (mt19937) and turns its 32-bit words to normal numbers by Box and Muller, in one way for 16 numbers
and more and in another below (ATen/native/cpu/DistributionTemplates.h, ATen/core/DistributionsHelper.h, of torch 2.13).
"""

from __future__ import annotations

import math

import numpy as np

#: Numbers in a block; of each, 8 radii and 8 angles.
_BLOCK = 16
_WORD = 2**32


class TorchNoise:
    """`torch.randn(…, generator=torch.Generator().manual_seed(seed))` in float32, one call after the other.

    Equal but for the last bits of logarithm, sine and cosine, which torch computes with vector instructions (5e-7).
    """

    def __init__(self, seed: int) -> None:
        self._words = np.random.RandomState(seed % _WORD)  # torch too takes 32 bits of a seed
        self._kept: float | None = None

    def standard_normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return the next draw of that shape, float32."""
        count = math.prod(shape)
        if count < _BLOCK:
            return np.array([self._one() for _ in range(count)], np.float32).reshape(shape)
        drawn = self._uniform(count)
        whole = count - count % _BLOCK
        drawn[:whole] = _normal(drawn[:whole])
        if whole < count:  # the last block overlaps the one before, of new numbers
            drawn[-_BLOCK:] = _normal(self._uniform(_BLOCK))
        return drawn.reshape(shape)

    def _uniform(self, count: int) -> np.ndarray:
        """Float32 in [0, 1) of the low 24 bits of a word each."""
        words = self._words.randint(0, _WORD, count, dtype=np.uint32)
        return (words & np.uint32(2**24 - 1)).astype(np.float32) * np.float32(2**-24)

    def _one(self) -> float:
        """The next number of a small draw, whose numbers come in pairs; torch too keeps the second for the next draw."""
        if self._kept is not None:
            kept, self._kept = self._kept, None
            return kept
        words = [int(word) for word in self._words.randint(0, _WORD, 4, dtype=np.uint32)]
        angle, share = ((((high << 32) | low) % 2**53) * 2.0**-53 for high, low in (words[:2], words[2:]))
        radius = math.sqrt(-2 * math.log1p(-share))
        self._kept = radius * math.sin(2 * math.pi * angle)
        return radius * math.cos(2 * math.pi * angle)


def _normal(uniform: np.ndarray) -> np.ndarray:
    """Blocks of normal numbers of blocks of uniform ones, float32 as torch computes them."""
    blocks = uniform.reshape(-1, 2, _BLOCK // 2)
    radius = np.sqrt(np.float32(-2) * np.log(np.float32(1) - blocks[:, 0]))
    angle = np.float32(2 * math.pi) * blocks[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)

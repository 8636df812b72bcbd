"""Standard normal noise as torch draws it on an NVIDIA GPU, without torch or a GPU, so that a seed means what people know.

torch gives every thread a stream of Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), and turns
its words to normal numbers as cuRAND's `curand_normal4` does, by Box and Muller. Which thread makes which number is what
`calc_execution_policy` and `distribution_elementwise_grid_stride_kernel` say (torch 2.13, ATen/native/cuda).
"""

from __future__ import annotations

import math

import numpy as np

#: Threads in a block, and numbers that a thread makes at a time.
_BLOCK, _UNROLL = 256, 4
_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = 0x9E3779B9, 0xBB67AE85
_ROUNDS, _HALF, _LOW = 10, np.uint64(32), np.uint64(2**32 - 1)
#: cuRAND's CURAND_2POW32_INV, and that times 2 pi, as float32.
_UNIT = np.float32(2**-32)
_CIRCLE = np.float32(np.float32(2.3283064e-10) * np.float32(6.2831855))


class TorchCudaNoise:
    """`torch.randn(…, generator=torch.Generator("cuda").manual_seed(seed))` in float32, one call after the other.

    The words are equal; the normal numbers but for the last bits, since a GPU takes a fast sine and cosine (up to about 1e-6).
    In half precision torch draws the same numbers, rounded.
    """

    def __init__(self, seed: int, threads: int | None = None) -> None:
        """Begin at a seed, as on a GPU that runs `threads` at once: multiprocessors times threads in each.

        A draw of more numbers than that many threads is another one on another GPU. None: of as many as there are numbers.
        """
        self._seed, self._offset = seed, 0
        self._blocks = None if threads is None else threads // _BLOCK

    def standard_normal(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return the next draw of that shape, float32."""
        return _normal(self.words(math.prod(shape))).reshape(-1)[: math.prod(shape)].reshape(shape)

    def words(self, count: int) -> np.ndarray:
        """Return the words that the next draw of so many numbers is made of, in its order: uint32 (rounds, 4, threads)."""
        blocks = -(-count // _BLOCK)
        threads = _BLOCK * (blocks if self._blocks is None else min(blocks, self._blocks))
        rounds = -(-count // (threads * _UNROLL))
        places = self._offset // _UNROLL + np.arange(rounds, dtype=np.uint64)
        self._offset += rounds * _UNROLL
        return philox(self._seed, places[:, None], np.arange(threads, dtype=np.uint64)).swapaxes(0, 1)


def philox(seed: int, place: np.ndarray, stream: np.ndarray) -> np.ndarray:
    """Philox 4x32-10 of uint64 places in uint64 streams, keyed by 64 bits of seed: uint32 (4, …), the shape of both together."""
    place, stream = np.broadcast_arrays(place, stream)
    counter = [place & _LOW, place >> _HALF, stream & _LOW, stream >> _HALF]
    key = [seed & (2**32 - 1), seed >> 32 & (2**32 - 1)]
    for _ in range(_ROUNDS):
        first, second = (_MULTIPLIERS[0] * counter[0], _MULTIPLIERS[1] * counter[2])
        counter = [
            (second >> _HALF) ^ counter[1] ^ np.uint64(key[0]),
            second & _LOW,
            (first >> _HALF) ^ counter[3] ^ np.uint64(key[1]),
            first & _LOW,
        ]
        key = [(word + weyl) & (2**32 - 1) for word, weyl in zip(key, _WEYL, strict=True)]
    return np.stack(counter).astype(np.uint32)


def _normal(words: np.ndarray) -> np.ndarray:
    """Normal numbers, float32, of pairs of words along axis 1: sine and cosine of the second, as long as the first says.

    Sums of products are rounded once, as a GPU's are.
    """
    radii, angles = (words[:, part::2].astype(np.float32).astype(np.float64) for part in (0, 1))
    share = (radii * _UNIT + _UNIT / 2).astype(np.float32)
    angle = (angles * np.float64(_CIRCLE) + np.float64(_CIRCLE / 2)).astype(np.float32)
    radius = np.sqrt(np.float32(-2) * np.log(share))
    turned = np.stack([np.sin(angle), np.cos(angle)], axis=2) * radius[:, :, None]
    return turned.reshape(words.shape)

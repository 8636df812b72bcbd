"""Where a sampler's noise comes from: a seed, or the caller."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from engines.errors import UnsupportedError
from engines.images.torch_noise import TorchNoise
from engines.manifest import Generator
from engines.samplers import Draw

Shape = tuple[int, int, int, int]


def seeded(seeds: Sequence[int], shape: Shape, generator: Generator) -> Draw:
    """Noise from one stream per picture, of its own seed: `numpy`'s Philox, or as `torch-cpu`, which diffusers' users have."""
    if generator == "torch-cpu":
        torch = [TorchNoise(seed) for seed in seeds]
        return lambda: np.stack([stream.standard_normal(shape[1:]) for stream in torch])
    streams = [np.random.Generator(np.random.Philox(key=seed)) for seed in seeds]
    return lambda: np.stack([stream.standard_normal(shape[1:], np.float32) for stream in streams])


def given(noise: Iterable[np.ndarray], shape: Shape) -> Draw:
    """The caller's own draws, one array of four axes or several; raise UnsupportedError where they do not fit or end too soon."""
    draws: Iterable[np.ndarray] = [np.asarray(noise)] if getattr(noise, "ndim", 0) == len(shape) else noise
    source = enumerate(draws, 1)

    def draw() -> np.ndarray:
        index, array = next(source, (0, None))
        if array is None:
            raise UnsupportedError(
                "this sampler draws more noise than was given. Give one array per draw of its table, and with an image one more "
                "in front, for the encoder."
            )
        if array.shape != shape or array.dtype != np.float32:
            raise UnsupportedError(f"noise {index} must be float32 {list(shape)}, got {array.dtype} {list(array.shape)}.")
        return array

    return draw


def hashed(draw: Draw, count: int) -> tuple[Draw, Callable[[], list[str]]]:
    """The same draws, and what returns for each of `count` pictures the SHA-256 of its share of those made so far."""
    hashes = [hashlib.sha256() for _ in range(count)]

    def drawn() -> np.ndarray:
        array = draw()
        for running, own in zip(hashes, array, strict=True):
            running.update(np.ascontiguousarray(own).tobytes())
        return array

    return drawn, lambda: [running.hexdigest() for running in hashes]


def read(path: Path) -> np.ndarray:
    """Read draws from a `.npy` file: float32 of four axes for one draw, or of five with the draws on the first.

    Raises:
        UnsupportedError: it is no such file.

    """
    try:
        with path.open("rb") as file:
            noise: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise UnsupportedError(f"{path} cannot be read as an array: {error}. Write it with numpy.save.") from error
    if noise.dtype != np.float32 or noise.ndim not in (4, 5):
        raise UnsupportedError(
            f"{path} holds {noise.dtype} {list(noise.shape)}. Noise is float32 [pictures, channels, latent height, latent "
            "width], or several such draws stacked on a first axis."
        )
    return noise

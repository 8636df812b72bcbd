"""Where a sampler's noise comes from: a seed, or the caller."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from uuid import uuid4

import numpy as np

from engines.disk import writing
from engines.errors import UnsupportedError
from engines.images.torch_cuda_noise import TorchCudaNoise
from engines.images.torch_noise import TorchNoise
from engines.manifest import Draft, Generator
from engines.samplers import Draw

Shape = tuple[int, int, int, int]
#: Makes the next draw of a shape, for who does not know yet of which.
Drawing = Callable[[Shape], np.ndarray]


class _NumpyNoise:
    """numpy's own normal numbers from its Philox, which has a key per seed."""

    def __init__(self, seed: int) -> None:
        self._numbers = np.random.Generator(np.random.Philox(key=seed))

    def standard_normal(self, shape: tuple[int, ...]) -> np.ndarray:
        return self._numbers.standard_normal(shape, np.float32)


#: What draws standard normal numbers of a seed, float32, one shape after the other.
_STREAMS = {"numpy": _NumpyNoise, "torch-cpu": TorchNoise, "torch-cuda": TorchCudaNoise}


def seeded(seeds: Sequence[int], shape: Shape, generator: Generator, narrow: Mapping[int, int] | None = None) -> Draw:
    """Noise from one stream per picture, of its own seed: `numpy`'s Philox, or as torch draws it, which diffusers' users have.

    `narrow`: draws, from 0, that have fewer channels, and how many; the others of these are 0.
    """
    return seeded_after({}, seeds, shape, generator, narrow)[0]


def seeded_after(
    first: Mapping[str, Sequence[int]],
    seeds: Sequence[int],
    shape: Shape,
    generator: Generator,
    narrow: Mapping[int, int] | None = None,
) -> tuple[Draw, dict[str, np.ndarray]]:
    """The same after noises of other shapes from the same streams, by name.

    `first` says of each name how many a picture has and the shape of each; they are returned as (pictures, number, …).
    """
    streams = [_STREAMS[generator](seed) for seed in seeds]
    drawn = {
        name: np.stack([np.stack([stream.standard_normal(tuple(own)) for _ in range(count)]) for stream in streams])
        for name, (count, *own) in first.items()
    }
    numbers, fewer = itertools.count(), narrow or {}

    def draw() -> np.ndarray:
        channels = fewer.get(next(numbers), shape[1])
        made = np.stack([stream.standard_normal((channels, *shape[2:])) for stream in streams])
        return np.pad(made, [(0, 0), (0, shape[1] - channels), (0, 0), (0, 0)]) if channels < shape[1] else made

    return draw, drawn


def narrow(manifest: Draft, channels: int) -> dict[int, int]:
    """Which of a seed's draws, from 0, are for parts that take fewer channels than a latent's, and how many they take."""
    ports = (manifest.parts[name].signature.port("noise") for name in manifest.encoding_order())
    taken = [int(port.shape[1]) for port in ports if port]
    order = dict(enumerate(manifest.noise_order))
    return {order.get(place, place): own for place, own in enumerate(taken) if own < channels}


def stream(seed: int, generator: Generator) -> Drawing:
    """Noise of all pictures from the one stream of a seed, as a single generator of torch gives it."""
    numbers = _STREAMS[generator](seed)
    return numbers.standard_normal


def after(first: np.ndarray, seeds: Sequence[int], generator: Generator) -> Drawing:
    """The caller's own first draw, and after it what the seeds draw, one stream per picture."""
    waiting, rest = [first], list[Draw]()

    def draw(shape: Shape) -> np.ndarray:
        if waiting:
            return waiting.pop()
        rest.extend([] if rest else [seeded(seeds, shape, generator)])
        return rest[0]()

    return draw


def given(noise: Iterable[np.ndarray] | Drawing, shape: Shape) -> Draw:
    """The caller's own draws, one array of four axes, or several, or what makes them.

    Raises:
        UnsupportedError: they do not fit, or end too soon.

    """
    draws: Iterable[np.ndarray]
    if callable(noise):
        draws = (noise(shape) for _ in itertools.count())
    else:
        draws = [np.asarray(noise)] if getattr(noise, "ndim", 0) == len(shape) else noise
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


def reordered(draw: Draw, order: Sequence[int]) -> Draw:
    """The same draws, the first of which are taken in another order."""
    numbers, made = iter(order), list[np.ndarray]()

    def drawn() -> np.ndarray:
        if (number := next(numbers, None)) is None:
            return draw()
        made.extend(draw() for _ in range(number + 1 - len(made)))
        return made[number]

    return drawn


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
    noise = read_array(path)
    if noise.dtype != np.float32 or noise.ndim not in (4, 5):
        raise UnsupportedError(
            f"{path} holds {noise.dtype} {list(noise.shape)}. Noise is float32 [pictures, channels, latent height, latent "
            "width], or several such draws stacked on a first axis."
        )
    return noise


def read_array(path: Path) -> np.ndarray:
    """Read a `.npy` file.

    Raises:
        UnsupportedError: it is none.

    """
    try:
        with path.open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise UnsupportedError(f"{path} cannot be read as an array: {error}. Write it with numpy.save.") from error


def write(latents: Sequence[np.ndarray], path: Path) -> None:
    """Write latents, float32 (pictures, channels, latent height, latent width) each, as one `.npy` file of all their pictures.

    Raises:
        MachineError: the disk is full, or the like.

    """
    beside = path.with_name(f".{path.name}-{uuid4().hex[:8]}")
    try:
        with writing(path, "writing latents"):
            with beside.open("wb") as file:
                np.lib.format.write_array(file, np.concatenate(latents), allow_pickle=False)
            beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)

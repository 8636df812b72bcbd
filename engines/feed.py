"""What a user gave for a bundle's own inputs: checked, then the arrays that its networks take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, cast

import numpy as np
from PIL import Image

from engines.errors import UnsupportedError
from engines.images import preprocess
from engines.images.init_image import digest
from engines.inputs import Input
from engines.signature import dimension

#: What sentences call each kind of input.
_CALLED = {"image": "a picture", "mask": "a picture", "number": "a number", "integer": "a whole number", "noise": "an array"}


class Feed:
    """The inputs by name, one value per picture; None where a picture takes the default.

    Raises:
        UnsupportedError: one is missing, is of another kind, or out of its range.

    """

    def __init__(self, entries: Mapping[str, Input], values: Mapping[str, Sequence[Any]]) -> None:
        self._entries, self._values = entries, values
        for name, entry in entries.items():
            for value in values[name]:
                _check(name, entry, value)

    def size(self, factors: Sequence[int]) -> tuple[tuple[int, int], tuple[int, int]] | None:
        """Height and width, in pixels, of the picture to make of those given whose sides follow its own; None without any.

        And the same of the picture that is given, which is another one where pictures are enlarged. `factors` are pixels per cell
        of the latent, down and across.
        """
        for name, entry in self._entries.items():
            sides = [dim for dim in entry.shape[1:3] if isinstance(dim, str)]
            first = next((value for value in self._values[name] if value is not None), None)
            if entry.pictured and len(sides) == 2 and first is not None:
                cells = [length / dimension(side)[0] for length, side in zip((first.height, first.width), sides, strict=True)]
                height, width = (round(count * factor) for count, factor in zip(cells, factors, strict=True))
                return (height, width), (first.height, first.width)
        return None

    def arrays(self, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
        """What the networks take, by name, for the lengths of the latent's named sides.

        Raises:
            UnsupportedError: a picture does not fit.

        """
        named = [(name, entry) for name, entry in self._entries.items() if name not in self.drawn]
        return {port: self._array(name, own, sizes) for name, entry in named for port, own in entry.taken(name).items()}

    @property
    def drawn(self) -> dict[str, tuple[int, ...]]:
        """Noise that a seed draws, none being given: how many draws of a picture, and the shape of each."""
        noise = {name: entry for name, entry in self._entries.items() if entry.kind == "noise"}
        return {name: _lengths(entry) for name, entry in noise.items() if all(each is None for each in self._values[name])}

    def _array(self, name: str, entry: Input, sizes: Mapping[str, int]) -> np.ndarray:
        values = self._values[name]
        if entry.kind == "noise":
            return np.stack(values)
        if not entry.pictured:
            kind = np.int64 if entry.kind == "integer" else np.float32
            return np.array([entry.default if value is None else value for value in values], kind)
        lengths = [(dim, "") if isinstance(dim, int) else dimension(dim) for dim in entry.shape[1:3]]
        height, width = (factor * sizes[side] if side else factor for factor, side in lengths)
        made: dict[int, np.ndarray] = {}  # most often one picture is for all
        for value in values:
            if id(value) not in made:
                made[id(value)] = (
                    preprocess.plain(entry, height, width) if value is None else preprocess.fed(name, entry, value, height, width)
                )
        return np.stack([made[id(value)] for value in values])

    def facts(self, index: int) -> dict[str, str]:
        """What one picture says of what it was fed: numbers, and the SHA-256 of pictures."""
        facts: dict[str, str] = {}
        for name, entry in self._entries.items():
            value = self._values[name][index]
            if entry.kind == "noise":
                facts |= {} if value is None else {f"input_{name}": digest_of(value)}
            elif entry.pictured and value is not None:
                facts[f"input_{name}"] = digest_of(value)
            elif not entry.pictured:
                number: Any = entry.default if value is None else value
                facts[f"input_{name}"] = str(int(number)) if entry.kind == "integer" else repr(float(number))
        return facts


def digest_of(image: Image.Image | np.ndarray) -> str:
    """SHA-256 of a picture's pixels, whatever file it came in, or of noise."""
    if isinstance(image, np.ndarray):
        return digest(np.ascontiguousarray(image))
    return digest(np.asarray(image.convert("RGBA") if image.mode == "P" else image))


def _lengths(entry: Input) -> tuple[int, ...]:
    return tuple(length for length in entry.shape[1:] if isinstance(length, int))


def _check_noise(name: str, entry: Input, value: Any) -> None:  # noqa: ANN401 - it is what this finds out
    if value is None:
        return
    wanted = _lengths(entry)
    array: np.ndarray = cast("np.ndarray", value) if isinstance(value, np.ndarray) else np.empty(0)
    if array.shape != wanted or array.dtype != np.float32:
        got = f"{array.dtype} {list(array.shape)}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
        raise UnsupportedError(f"input {name} is noise, float32 {list(wanted)} a picture, and {got} was given.")


def _check(name: str, entry: Input, value: Any) -> None:  # noqa: ANN401 - it is what this finds out
    if entry.kind == "noise":
        _check_noise(name, entry, value)
        return
    if value is None and entry.default is None:
        raise UnsupportedError(
            f"this bundle needs the input {name}, {_CALLED[entry.kind]}{_about(entry)}. Give it: --input {name}=…"
        )
    if value is None:
        return
    if entry.pictured and not isinstance(value, Image.Image):
        raise UnsupportedError(f"input {name} is {_CALLED[entry.kind]}{_about(entry)}, and a {type(value).__name__} was given.")
    if not entry.pictured:
        if isinstance(value, bool) or not isinstance(value, Real):
            raise UnsupportedError(
                f"input {name} is {_CALLED[entry.kind]}{_about(entry)}, and a {type(value).__name__} was given."
            )
        if problem := entry.problem(float(value)):
            raise UnsupportedError(f"input {name}: {problem}.")


def _about(entry: Input) -> str:
    return f" ({entry.about})" if entry.about else ""

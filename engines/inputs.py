"""What a user feeds beside the prompt, as a bundle declares it: images, masks and numbers, inputs of its networks by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from engines.signature import Dim, Name, Port
from engines.strict import Frozen

#: Channels of a picture: grey, or red, green and blue.
_GREY, _RGB = 1, 3


class Preprocessing(Frozen):
    """What a picture goes through before a network sees it, in this order, as the source pipeline's image processor has it.

    Attributes:
        resize: `none` takes the right size only; `stretch` resizes both sides; `crop` fills the size, and cuts off what juts out
            on the longer side, the same left and right.
        resample: the filter of resizing.
        invert: 1 minus the grey or colour in [0, 1].
        binarize: 1 from one half on, else 0.
        mean: subtracted, one number or one a channel.
        std: divided by after that; mean 0.5 and std 0.5 make [-1, 1] of [0, 1].

    """

    resize: Literal["none", "stretch", "crop"] = "none"
    resample: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "lanczos"
    invert: bool = False
    binarize: bool = False
    mean: tuple[float, ...] = Field(default=(0.0,), min_length=1, max_length=_RGB)
    std: tuple[float, ...] = Field(default=(1.0,), min_length=1, max_length=_RGB)


class View(Frozen):
    """A picture once more, as another port takes it: made of what the user feeds, and not of what the input's own port takes.

    Attributes:
        shape: of every port of this name; a picture's sides are numbers, or multiples of the latent's.
        preprocessing: what the picture goes through.

    """

    shape: tuple[Dim, ...]
    preprocessing: Preprocessing


class Input(Frozen):
    """One input that users feed: `t2iexport generate --input NAME=FILE`, or `NAME=NUMBER`.

    Attributes:
        kind: `image` and `mask` are float32 (batch, height, width, channels), a mask of one channel; `number` is float32
            (batch,), `integer` int64 (batch,), `noise` float32 (batch, draws, …), which a seed draws before all other noise.
        shape: of every port of this name; a picture's sides are numbers, or multiples of the latent's.
        minimum: of a number; so is `maximum`, both included.
        default: what is fed where nothing is given: a number, or of a picture the grey in [0, 1] that fills it. Null: it must
            be given.
        preprocessing: of a picture.
        views: further ports that take the same picture, each in a size or a range of its own, by name.
        about: a line for those who feed it.

    """

    kind: Literal["image", "mask", "number", "integer", "noise"]
    shape: tuple[Dim, ...]
    minimum: float | None = None
    maximum: float | None = None
    default: float | None = None
    preprocessing: Preprocessing | None = None
    views: dict[Name, View] = Field(default_factory=dict)
    about: str = ""

    @property
    def pictured(self) -> bool:
        """Whether it is a picture, not a number."""
        return self.kind in {"image", "mask"}

    @property
    def digested(self) -> bool:
        """Whether what is fed is told by its SHA-256, not as a number."""
        return self.pictured or self.kind == "noise"

    def port(self, name: str) -> Port:
        """The port that it feeds."""
        return Port(name=name, dtype="int64" if self.kind == "integer" else "float32", shape=self.shape)

    def taken(self, name: str) -> dict[str, Self]:
        """By port what takes the input of that name: itself, and each of its views as if it were an input of its own."""
        views = {port: self.model_copy(update={**dict(view), "views": {}}) for port, view in self.views.items()}
        return {name: self, **views}

    def counting(self) -> dict[str, object]:
        """As JSON what a picture that is drawn depends on; views alone where there are some, which older formats had not."""
        return self.model_dump(mode="json", exclude={"about"} if self.views else {"about", "views"})

    def problem(self, number: float) -> str:
        """Why a number cannot be fed, for a sentence; empty where it can."""
        low, high = (-math.inf if self.minimum is None else self.minimum), (math.inf if self.maximum is None else self.maximum)
        if self.kind == "integer" and not float(number).is_integer():
            return f"{number:g} is no whole number"
        if low <= number <= high and math.isfinite(number):
            return ""
        ends = [f"at least {low:g}"] * (low > -math.inf) + [f"at most {high:g}"] * (high < math.inf)
        return f"{number:g} is out of range; it takes {' and '.join(ends) or 'any finite number'}"

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.kind == "noise":
            bounds = self.minimum, self.maximum, self.default, self.preprocessing, self.views or None
            if (
                any(each is not None for each in bounds)
                or len(self.shape) < 3
                or any(isinstance(each, str) for each in self.shape[1:])
            ):
                raise ValueError("noise has the shape (batch, draws, …) of numbers, and nothing else is said of it")
            return self
        if not self.pictured:
            if self.preprocessing or self.views or self.shape[1:]:
                raise ValueError(f"a {self.kind} has no preprocessing and no views, and the shape (batch,)")
            if self.default is not None and (problem := self.problem(self.default)):
                raise ValueError(f"default {problem}")
            return self
        for each in (self, *self.views.values()):
            _check_picture(self.kind, each.shape, each.preprocessing or Preprocessing())
        if self.preprocessing is None or self.minimum is not None or self.maximum is not None:
            raise ValueError(f"{self.kind} must say its preprocessing, and has no minimum or maximum")
        if self.default is not None and not 0 <= self.default <= 1:
            raise ValueError(f"default {self.default:g} is no grey from 0 to 1")
        return self


def _check_picture(kind: str, shape: tuple[Dim, ...], about: Preprocessing) -> None:
    depth = shape[-1] if len(shape) == 4 else 0
    if depth not in ((_GREY,) if kind == "mask" else (_GREY, _RGB)):
        raise ValueError(f"{kind} must have the shape (batch, height, width, channels), of 1 channel or an image's 3")
    if not {len(about.mean), len(about.std)} <= {1, depth} or 0 in about.std:
        raise ValueError(f"mean and std must be one number or {depth}, and std not 0")


def taken(inputs: Mapping[str, Input]) -> dict[str, Input]:
    """By port what takes any of the inputs, their views among them."""
    return {port: entry for name, own in inputs.items() for port, entry in own.taken(name).items()}

"""Pictures among the arguments of a pipeline's call, and what its image processors do to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from torch import Tensor

from engines.errors import UnsupportedError
from engines.inputs import Preprocessing
from exporter.families import _standins, _survey
from exporter.families._origins import STEP, origins

#: Arguments that are pictures by their annotation, and further networks' business.
_OTHERS = ("ip_adapter_image", "negative_ip_adapter_image")
#: What users call an argument, where that is another word.
_WORDS = {"mask_image": "mask"}
_FILTERS = ("nearest", "bilinear", "bicubic", "lanczos")


@dataclass(frozen=True)
class Picture:
    """What a pipeline makes of one of its pictures: `grey` has one channel."""

    grey: bool
    preprocessing: Preprocessing


#: Of one that no image processor prepares: as it is, in [0, 1].
PLAIN = Picture(grey=False, preprocessing=Preprocessing())


class Unprepared(BaseException):  # an event; and no pipeline shall catch it
    """The pipeline looks into one of its pictures itself, without an image processor."""


class Shown(Image.Image):
    """A picture in the hands of a pipeline, that only an image processor may look into: pipelines take tensors as prepared.

    Attributes:
        content: (B, channels, height, width).

    """

    def __init__(self, content: Tensor) -> None:
        super().__init__()
        self.content, self._size = content, (content.shape[3], content.shape[2])

    def load(self) -> NoReturn:
        """Whatever looks into a picture of PIL begins here."""
        raise Unprepared


def as_numbers(content: Tensor) -> Tensor:
    """A picture in the hands of a pipeline that prepares none: its numbers."""
    return content


def arguments(pipeline: Any) -> Mapping[str, str]:  # noqa: ANN401 - a pipeline of diffusers
    """Name of an input → the argument of the pipeline's call that is a picture."""
    takes = _survey.arguments(pipeline)
    named = (name for name, about in takes.items() if "PIL.Image" in str(about.annotation) and name not in _OTHERS)
    return {_WORDS.get(name, name): name for name in named}


def processors(pipeline: Any) -> Mapping[str, VaeImageProcessor]:  # noqa: ANN401
    """The image processors of a pipeline, by its attribute."""
    return {name: value for name, value in vars(pipeline).items() if isinstance(value, VaeImageProcessor)}


def taking(pipeline: Any, seen: dict[str, Picture]) -> dict[str, Any]:  # noqa: ANN401
    """Stand-ins for a pipeline's image processors, which take pictures as prepared and note, in `seen`, what they would do."""
    found = {}
    for name, real in processors(pipeline).items():

        def preprocess(
            _self: object,
            image: Any,  # noqa: ANN401 - as the pipeline has it
            height: int | None = None,  # noqa: ARG001 - a picture comes in the right size
            width: int | None = None,  # noqa: ARG001
            resize_mode: str = "default",
            crops_coords: object = None,
            real: VaeImageProcessor = real,
        ) -> Tensor:
            given = _one(image)
            about = _about(real, resize_mode, cropped=crops_coords is not None)
            for own in origins(given):
                if seen.setdefault(own, about) != about:
                    raise UnsupportedError(f"{type(pipeline).__name__} prepares its picture {own} in two ways.")
            return given[:, :1] if about.grey else given

        found[name] = _standins.stand_in(real, preprocess=preprocess)
    return found


def noting(pipeline: Any, note: Callable[[Any, Tensor], Tensor]) -> dict[str, Any]:  # noqa: ANN401
    """Image processors that do their work, and hand `note` the picture and what they made of it, for what takes its place."""
    found = {}
    for name, real in processors(pipeline).items():

        def preprocess(_self: object, image: Any, *args: Any, real: VaeImageProcessor = real, **kwargs: Any) -> Tensor:  # noqa: ANN401
            return note(image, real.preprocess(image, *args, **kwargs))

        found[name] = _standins.stand_in(real, preprocess=preprocess)
    return found


def _one(image: Any) -> Tensor:  # noqa: ANN401
    if isinstance(image, list) and len(cast("list[Any]", image)) == 1:
        return _one(image[0])
    image = image.content if isinstance(image, Shown) else image
    if not isinstance(image, Tensor) or STEP in origins(image):
        raise UnsupportedError(f"a {type(image).__name__} is prepared as a picture, which none of the inputs is.")
    return image


def _about(processor: VaeImageProcessor, resize_mode: str, *, cropped: bool) -> Picture:
    config: Any = processor.config
    if resize_mode != "default" or cropped:
        raise UnsupportedError(f"a picture is cut out by {resize_mode!r}, which is not built.")
    if config.resample not in _FILTERS:
        raise UnsupportedError(f"a picture is resized by {config.resample!r}; there are {', '.join(_FILTERS)}.")
    if config.do_normalize and config.do_binarize:
        raise UnsupportedError("a picture is normalised and then made black and white, which is not built.")
    middle = 0.5 if config.do_normalize else 0.0  # [-1, 1] of [0, 1]
    preprocessing = Preprocessing(
        resize="stretch" if config.do_resize else "none",
        resample=config.resample,
        binarize=config.do_binarize,
        mean=(middle,),
        std=(1 - middle,),
    )
    return Picture(config.do_convert_grayscale, preprocessing)

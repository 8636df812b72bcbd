"""Pictures among the arguments of a pipeline's call, and what its image processors do to them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn, TypeVar, cast

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from torch import Tensor, nn
from transformers import BatchFeature

from engines.errors import UnsupportedError
from engines.inputs import Preprocessing
from exporter.families.tracing.following import dry_run, own_start, standins
from exporter.families.tracing.following.origins import STEP, marked, origins
from exporter.families.tracing.pictures import depth_maps, feature_extractors, ip_adapters, own_preparation

#: Arguments that are pictures by their annotation, of networks that a pipeline may have.
_OTHERS = (ip_adapters.IMAGE, f"negative_{ip_adapters.IMAGE}")
#: Of which one call takes one, for all its prompts.
SHARED = ip_adapters.IMAGE
#: What users call an argument, where that is another word; and arguments that are pictures by their name.
_WORDS, _NAMES = {"mask_image": "mask"}, ("image", "mask_image")
#: What a survey is, which knows this module.
Surveyed = TypeVar("Surveyed")
_FILTERS = ("nearest", "bilinear", "bicubic", "lanczos")


@dataclass(frozen=True)
class Picture:
    """What a pipeline makes of one of its pictures.

    Attributes:
        grey: whether it is a mask, of one channel.
        preprocessing: what is done to it.
        sides: its height and width, where they are its network's own, and not the drawn picture's.
        map: whether it has one channel of levels.

    """

    grey: bool
    preprocessing: Preprocessing
    sides: tuple[int, int] | None = None
    map: bool = False


#: Of one that no image processor prepares: as it is, in [0, 1].
PLAIN = Picture(grey=False, preprocessing=Preprocessing())
MAP = Picture(grey=False, preprocessing=Preprocessing(resize="stretch", resample="bicubic"), map=True)


class Unprepared(BaseException):  # an event; and no pipeline shall catch it
    """The pipeline looks into one of its pictures itself, without an image processor."""


class Several(BaseException):
    """The pipeline takes one of its pictures for a list of them, of which `name` is the first."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


class Shown(Image.Image):
    """A picture in the hands of a pipeline, that only an image processor may look into: pipelines take tensors as prepared.

    Attributes:
        content: (B, channels, height, width), or B pictures of PIL.
        resample: by what filter the pipeline has made it of one of its pictures; None: it is one.

    """

    def __init__(self, content: Tensor | list[Image.Image], resample: str | None = None) -> None:
        super().__init__()
        self.resample = resample
        size = (content.shape[3], content.shape[2]) if isinstance(content, Tensor) else content[0].size
        self.content, self._size = content, size

    def load(self) -> NoReturn:
        """Whatever looks into a picture of PIL begins here."""
        raise Unprepared

    def __getitem__(self, _place: object) -> NoReturn:
        """So begins whatever goes through a list."""
        raise Several(next(iter(origins(self.content)), "") if isinstance(self.content, Tensor) else "")


def pil(pixels: np.ndarray) -> Image.Image:
    """A picture of uint8 (height, width, channels)."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def in_hand(pictures: Mapping[str, np.ndarray], shared: Collection[str]) -> dict[str, list[Image.Image]]:
    """Pictures of PIL of uint8 (B, height, width, channels) by input; the first alone of what all of a call share."""
    return {name: [pil(each) for each in (own[:1] if name in shared else own)] for name, own in pictures.items()}


def piled(pictures: Mapping[str, Any], *, piles: bool) -> dict[str, Any]:
    """Pictures of PIL by input, or in one pile each, which no pipeline takes apart: some take a list for one prompt's."""
    return {name: Shown(own) if piles and isinstance(own, list) else own for name, own in pictures.items()}


def as_numbers(content: Tensor) -> Tensor:
    """A picture in the hands of a pipeline that prepares none: its numbers."""
    return content


def arguments(pipeline: Any) -> Mapping[str, str]:  # noqa: ANN401 - a pipeline of diffusers
    """Name of an input → the argument of the pipeline's call that is a picture."""
    takes = dry_run.arguments(pipeline)
    named = (name for name, about in takes.items() if _is_picture(name, about) and name not in {*_OTHERS, *depth_maps.MAPS})
    return {**{_WORDS.get(name, name): name for name in (*named, *depth_maps.named(pipeline))}, **ip_adapters.words(pipeline)}


def _is_picture(name: str, about: inspect.Parameter) -> bool:
    """Whether an argument is one: by its annotation, or by its name where that has the tensor alone that it may come as."""
    annotation = str(about.annotation)
    return "PIL.Image" in annotation or (name in _NAMES and ("Tensor" in annotation or "PipelineImageInput" in annotation))


def mapped(pictures: Mapping[str, str]) -> dict[str, Picture]:
    """What is made of those that are, of pictures by input and their arguments."""
    return {name: MAP for name, argument in pictures.items() if argument in depth_maps.MAPS}


def numbered(named: Mapping[str, str], lists: Mapping[str, int]) -> dict[str, str]:
    """Inputs and their arguments: of an argument that is a list as many as it has pictures, as image, image_2 and so on."""
    found: dict[str, str] = {}
    for name, argument in named.items():
        found |= {f"{name}_{number}" if number > 1 else name: argument for number in range(1, lists.get(argument, 1) + 1)}
    return found


def by_argument(pictures: Mapping[str, Any], words: Mapping[str, str], lists: Collection[str]) -> dict[str, Any]:
    """What stands for each picture, by its argument: in a list where that is among `lists`."""
    found = dict[str, list[Any]]()
    for name, each in pictures.items():
        one = each.content if isinstance(each, Shown) else each
        found.setdefault(words[name], []).append(depth_maps.handed(one) if words[name] in depth_maps.MAPS else each)
    return {name: each if name in lists else each[0] for name, each in found.items()}


def count(pipeline: Any) -> int:  # noqa: ANN401
    """How many pictures a pipeline takes at once: as many as it has networks under one name.

    Raises:
        UnsupportedError: no component is a list of networks.

    """
    networks = (list(each.children()) for each in pipeline.components.values() if isinstance(each, nn.Module))
    several = [inner[0] for inner in networks if len(inner) == 1 and isinstance(inner[0], nn.ModuleList)]
    if len(several) != 1:
        raise UnsupportedError(f"{type(pipeline).__name__} takes several pictures at once, and nothing says how many.")
    return len(several[0])


def handed(
    pipeline: Any,  # noqa: ANN401
    survey: Callable[..., Surveyed],
    words: Mapping[str, str] | None = None,
    lists: Mapping[str, int] | None = None,
) -> Surveyed:
    """Survey a pipeline with what it takes for a picture: one, a list of several, or numbers.

    `lists`: arguments that are to be so many pictures; others are found.

    Where a network's own image processor prepares them, for a size of its own, numbers that are prepared are handed to it: there
    may be any number of them, and a picture of PIL's is one. But not where one call takes one for all its prompts. What the
    pipeline itself brings to a size of its own has that size from the beginning.
    """
    lists, hand = dict(lists or {}), cast("Callable[[Tensor], Any]", Shown)
    while True:
        try:
            found = survey(hand=hand, lists=lists)
        except Unprepared:
            if any(argument in _WORDS for argument in (words or arguments(pipeline)).values()):
                name = type(pipeline).__name__
                raise UnsupportedError(
                    f"{name} prepares its mask by code of its own, without an image processor, which is not built.\n"
                    "  This is a gap in t2iexport."
                ) from None
            hand = as_numbers
        except Several as event:
            lists[(words or arguments(pipeline))[event.name]] = count(pipeline)
        else:
            if hand is as_numbers or cast("Any", found).shared:
                return found
            about = prepared_by(found)
            known = bool(about) and all(each.sides for each in about.values())
            numbers = as_numbers if feature_extractors.of(pipeline) else hand
            return survey(hand=numbers, lists=lists, prepared=about) if known else found


def counted(pipeline: Any) -> bool:  # noqa: ANN401
    """Whether a pipeline draws as many pictures as it is shown, without a prompt."""
    return bool(arguments(pipeline)) and not {"prompt", "batch_size"} & dry_run.arguments(pipeline).keys()


def prepared_by(survey: Any) -> Mapping[str, Picture]:  # noqa: ANN401 - a `Survey`
    """What is made of each picture of a surveyed pipeline."""
    return {name: survey.prepared.get(name, PLAIN) for name in survey.pictures}


def processors(pipeline: Any) -> Mapping[str, VaeImageProcessor]:  # noqa: ANN401
    """The image processors of a pipeline, by its attribute."""
    return {name: value for name, value in vars(pipeline).items() if isinstance(value, VaeImageProcessor)}


def taking(
    pipeline: Any,  # noqa: ANN401
    seen: dict[str, Picture],
    sides: set[tuple[int | None, int | None]] | None = None,
) -> dict[str, Any]:
    """Stand-ins for a pipeline's image processors, which take pictures as prepared and note, in `seen`, what they would do.

    To which heights and widths pictures would be resized is put to `sides`.
    """
    found, sizes = {}, _OwnSizes(seen)

    def note(given: Tensor, about: Picture) -> None:
        for own in origins(given):
            if seen.setdefault(own, about) != about:
                raise UnsupportedError(f"{type(pipeline).__name__} prepares its picture {own} in two ways.")

    for name, real in processors(pipeline).items():

        def preprocess(
            _self: object,
            image: Any,  # noqa: ANN401
            height: int | None = None,
            width: int | None = None,
            resize_mode: str = "default",
            crops_coords: object = None,
            real: VaeImageProcessor = real,
        ) -> Tensor:
            if sides is not None:
                sides.add((height, width))
            given, own_sides, own_sized = sizes.prepared(_one(image), (height, width))
            about = _about(real, resize_mode, cropped=crops_coords is not None, own_sized=own_sized)
            note(given, replace(about, sides=own_sides))
            return given[:, :1] if about.grey else given

        def resize(
            _self: object,
            image: Any,  # noqa: ANN401
            height: Any = None,  # noqa: ANN401 - lengths that may be open
            width: Any = None,  # noqa: ANN401
            *_: object,
            real: VaeImageProcessor = real,
            **__: object,
        ) -> Any:  # noqa: ANN401
            return sizes.resized(image, (height, width), cast("Any", real.config).resample)

        found[name] = standins.stand_in(real, preprocess=own_start.beside_blanks(pipeline, preprocess), resize=resize)

    found |= {name: _extracting(real, note) for name, real in feature_extractors.of(pipeline).items()}

    def own(image: Any, preprocessing: Preprocessing, grey: bool) -> Tensor:  # noqa: ANN401, FBT001
        given = _one(image)
        note(given, Picture(grey, preprocessing))
        return given[:, :1] if grey else given

    return found | own_preparation.stand_ins(pipeline, own)


def _extracting(real: Any, note: Callable[[Tensor, Picture], None]) -> Any:  # noqa: ANN401 - of transformers
    """What takes the place of a network's own image processor."""

    def extract(_self: object, images: Any, *_: object, **__: object) -> BatchFeature:  # noqa: ANN401
        given, about = _one(images), Picture(False, *feature_extractors.prepares(real))  # noqa: FBT003
        note(given, about)
        if tuple(given.shape[2:]) != about.sides:
            given = _black(given, cast("tuple[int, int]", about.sides))
        return BatchFeature({"pixel_values": given})

    return standins.stand_in(real, __call__=extract)


def noting(
    pipeline: Any,  # noqa: ANN401
    note: Callable[[Any, Tensor], Tensor],
    resized: Callable[[Any, list[Image.Image]], None] | None = None,
) -> dict[str, Any]:
    """Image processors that do their work, and hand `note` the picture and what they made of it, for what takes its place.

    A pile of pictures that they are to bring to another size is told to `resized` beside what it becomes; by default it stays.
    """
    found = {}
    for name, real in processors(pipeline).items():

        def preprocess(_self: object, image: Any, *args: Any, real: VaeImageProcessor = real, **kwargs: Any) -> Tensor:  # noqa: ANN401
            if isinstance(image, own_start.Blank):
                return own_start.begun(pipeline, image)
            shown: Any = image.content if isinstance(image, Shown) else image
            return note(shown, real.preprocess(shown, *args, **kwargs))

        def resize(_self: object, image: Any, *args: Any, real: VaeImageProcessor = real, **kwargs: Any) -> Any:  # noqa: ANN401
            if not isinstance(image, Shown):
                return real.resize(image, *args, **kwargs)
            content: Any = image.content
            if resized is None:
                return image
            made: list[Any] = [real.resize(each, *args, **kwargs) for each in content]
            if made[0].size == image.size:
                return image
            resized(content, made)
            return Shown(made)

        found[name] = standins.stand_in(real, preprocess=preprocess, resize=resize)

    for name, real in feature_extractors.of(pipeline).items():

        def extract(_self: object, images: Any, *args: Any, real: Any = real, **kwargs: Any) -> BatchFeature:  # noqa: ANN401
            shown: Any = images.content if isinstance(images, Shown) else images
            return BatchFeature({"pixel_values": note(shown, real(shown, *args, **kwargs)["pixel_values"])})

        found[name] = standins.stand_in(real, __call__=extract)
    return found


class _OwnSizes:
    """Sizes of their own in which a pipeline has pictures: in which they come, or to which its image processors bring them.

    `seen`: what is known before of each picture.
    """

    def __init__(self, seen: Mapping[str, Picture]) -> None:
        self._known, self._kept, self._made = dict(seen), set[str](), dict[int, Tensor]()

    def resized(self, image: Any, wanted: Sequence[Any], resample: str) -> Any:  # noqa: ANN401 - as the pipeline has it
        """What a pipeline makes of one of its pictures that it wants in a height and width."""
        given = _one(image)
        if _differ(given.shape[2:], wanted):
            given = _black(given, wanted)
            self._made[id(given)] = given
            return Shown(given, resample) if isinstance(image, Shown) else given
        self._kept.update(own for own in origins(given) if self._sides(own, given) is None)
        return image

    def prepared(self, given: Tensor, wanted: Sequence[Any]) -> tuple[Tensor, tuple[int, int] | None, bool]:
        """A picture as it is prepared in a height and width, the sides that are its own, and whether it comes in these."""
        height, width = given.shape[2:]
        if id(given) in self._made:
            return given, (int(height), int(width)), False
        if _differ(given.shape[2:], wanted):
            made = _black(given, wanted)
            return made, (int(made.shape[2]), int(made.shape[3])), False
        sides = {self._sides(own, given) for own in origins(given)}
        return given, (sides.pop() if len(sides) == 1 else None), bool(origins(given) & self._kept)

    def _sides(self, own: str, given: Tensor) -> tuple[int, int] | None:
        """Those that are known of a picture, which it has."""
        sides = self._known[own].sides if own in self._known else None
        return sides if sides == tuple(given.shape[2:]) else None


def _differ(own: Sequence[Any], wanted: Sequence[Any]) -> bool:
    """Whether a picture has other sides than are wanted of it, all of which are numbers."""
    return all(isinstance(each, int) for each in (*own, *wanted)) and tuple(own) != tuple(wanted)


def _black(like: Tensor, sides: Sequence[int]) -> Tensor:
    """The same picture of another height and width, of the first look, which does not know its sides yet."""
    return marked(torch.zeros(like.shape[0], 3, *sides), *origins(like))


def _one(image: Any) -> Tensor:  # noqa: ANN401
    if isinstance(image, list) and len(cast("list[Any]", image)) == 1:
        return _one(image[0])
    image = image.content if isinstance(image, Shown) else image
    if not isinstance(image, Tensor) or STEP in origins(image):
        raise UnsupportedError(f"a {type(image).__name__} is prepared as a picture, which none of the inputs is.")
    return image


def _about(processor: VaeImageProcessor, resize_mode: str, *, cropped: bool, own_sized: bool) -> Picture:
    """What is done to a picture; `own_sized`: in a size of its own, and not resized to that of what is drawn."""
    config: Any = processor.config
    own_sized |= resize_mode == "crop"  # of what has the right size nothing is
    if resize_mode not in {"default", "crop"} or cropped:
        raise UnsupportedError(f"a picture is cut out by {resize_mode!r}, which is not built.")
    if config.resample not in _FILTERS:
        raise UnsupportedError(f"a picture is resized by {config.resample!r}; there are {', '.join(_FILTERS)}.")
    if config.do_normalize and config.do_binarize:
        raise UnsupportedError("a picture is normalised and then made black and white, which is not built.")
    middle = 0.5 if config.do_normalize else 0.0  # [-1, 1] of [0, 1]
    preprocessing = Preprocessing(
        resize="stretch" if config.do_resize and not own_sized else "none",
        resample=config.resample,
        binarize=config.do_binarize,
        mean=(middle,),
        std=(1 - middle,),
    )
    return Picture(config.do_convert_grayscale, preprocessing)

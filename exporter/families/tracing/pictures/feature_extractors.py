"""Image processors of transformers among a pipeline's components: what they make of a picture, as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import transformers
from PIL import Image
from transformers.image_processing_utils import BaseImageProcessor

from engines.errors import UnsupportedError
from engines.inputs import Preprocessing

#: What transformers called its image processors before version 5.
_FORMER = "FeatureExtractor"
_NAMES = ("nearest", "bilinear", "bicubic", "lanczos")
_FILTERS: dict[Any, Any] = {getattr(Image.Resampling, name.upper()): name for name in _NAMES}


def kind(name: str) -> Any:  # noqa: ANN401 - a class of transformers'
    """The class of that name whose pictures are PIL's, which needs no torchvision; None where it is no image processor's."""
    name = name.replace(_FORMER, "ImageProcessor").removesuffix("Fast")
    found = getattr(transformers, f"{name.removesuffix('Pil')}Pil", None) or getattr(transformers, name, None)
    return found if isinstance(found, type) and issubclass(found, BaseImageProcessor) else None


def load(name: str, config: Mapping[str, Any]) -> Any:  # noqa: ANN401 - transformers'
    """The image processor of that class and config."""
    return kind(name).from_dict(dict(config))


def of(pipeline: Any) -> Mapping[str, Any]:  # noqa: ANN401 - a pipeline of diffusers
    """The image processors among its components, by name."""
    return {name: each for name, each in vars(pipeline).items() if isinstance(each, BaseImageProcessor)}


def prepares(extractor: Any) -> tuple[Preprocessing, tuple[int, int]]:  # noqa: ANN401 - transformers'
    """What is done to a picture, and the height and width that it then has.

    Raises:
        UnsupportedError: it is none of what a bundle does.

    """
    name, cuts = type(extractor).__name__, bool(getattr(extractor, "do_center_crop", None))  # which not every class has
    size, crop = dict(extractor.size or {}), dict(extractor.crop_size or {}) if cuts else {}
    sides = tuple(int((crop if cuts else size).get(each) or 0) for each in ("height", "width"))
    shortest = int(size.get("shortest_edge") or 0)
    if not extractor.do_resize or 0 in sides or size.get("longest_edge"):
        raise UnsupportedError(f"{name} makes pictures of no size that is known ({_stated(size, crop)}), which is not built.")
    if cuts and shortest != min(sides) and (size.get("height"), size.get("width")) != sides:
        raise UnsupportedError(
            f"{name} resizes a picture to other sides than it then cuts out ({_stated(size, crop)}), which is not built."
        )
    if cuts and shortest and sides[0] != sides[1]:
        raise UnsupportedError(f"{name} cuts out what is not square ({_stated(size, crop)}), which is not built.")
    if not extractor.do_rescale or abs(extractor.rescale_factor * 255 - 1) > 1e-6:
        raise UnsupportedError(f"{name} does not take colours from 0 to 1 (rescale_factor), which is not built.")
    if getattr(extractor, "do_pad", None) or extractor.resample not in _FILTERS:
        raise UnsupportedError(f"{name} pads pictures, or resizes them by {extractor.resample!r}, which is not built.")
    made = Preprocessing(
        resize="crop" if cuts and shortest else "stretch",
        resample=_FILTERS[extractor.resample],
        mean=tuple(extractor.image_mean) if extractor.do_normalize else (0.0,),
        std=tuple(extractor.image_std) if extractor.do_normalize else (1.0,),
    )
    return made, (sides[0], sides[1])


def _stated(size: Mapping[str, Any], crop: Mapping[str, Any]) -> str:
    told = {"size": size, "crop_size": crop}
    own = {name: {key: value for key, value in each.items() if value} for name, each in told.items()}
    return ", ".join(f"{name} {each}" for name, each in own.items() if each) or "no size"

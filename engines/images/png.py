"""Arrays → pictures, and pictures → PNG, JPEG and WebP files that say how they were made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import numpy as np
from PIL import Image, PngImagePlugin

from engines.errors import UnsupportedError

#: Ending → format.
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
#: Nothing that the eye sees is lost; a PNG alone keeps every number.
_OPTIONS: Mapping[str, Mapping[str, Any]] = {"PNG": {}, "JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"quality": 95}}
#: EXIF's ImageDescription, which holds ASCII.
_DESCRIPTION = 0x010E
#: Bytes that a segment of a JPEG holds.
_LONGEST = 65_500


def picture(image: np.ndarray, facts: Mapping[str, str]) -> Image.Image:
    """Turn float32 (height, width, 3) in [0, 1] into a picture that carries `facts` as its `info`.

    Raises:
        UnsupportedError: there is NaN or infinity in it.

    """
    if not np.isfinite(image).all():
        raise UnsupportedError("the decoder returned NaN or infinity. If it computes in fp16, build it with precision fp32.")
    made = Image.fromarray((image.clip(0, 1) * 255).round().astype(np.uint8), "RGB")
    made.info.update(facts)
    return made


def writable(path: Path) -> str:
    """The format that a path's ending asks for, as Pillow names it; raise UnsupportedError where it is none of ours."""
    form = _FORMATS.get(path.suffix.lower())
    if form is None:
        raise UnsupportedError(f"{path}: pictures are written as PNG, JPEG or WebP. End the name in {', '.join(_FORMATS)}.")
    return form


def save(pictures: Sequence[Image.Image], path: Path, *, metadata: bool = True) -> list[Path]:
    """Write files of the format that the path ends in: `path`, or with -1, -2 … before the suffix when there are several.

    Their facts go in as text of a PNG, or in the EXIF description of a JPEG or WebP as JSON, unless `metadata` is false. Each is
    written beside its place and put there when all are whole.

    Raises:
        UnsupportedError: the path's ending is none of ours, or the facts are too long for a JPEG.
        OSError: the disk is full, or the like.

    """
    form, count = writable(path), len(pictures)
    paths = [path] if count == 1 else [path.with_stem(f"{path.stem}-{index}") for index in range(1, count + 1)]
    partial = {place: place.with_name(f".{place.name}.{uuid4().hex[:8]}.partial") for place in paths}
    try:
        for made, place in zip(pictures, paths, strict=True):
            told = _told(made, form) if metadata else {}
            # Facts in `info` are ours to write, not Pillow's, which takes some names of it as options of its own.
            Image.fromarray(np.asarray(made), "RGB").save(partial[place], format=form, **_OPTIONS[form], **told)
        for place, written in partial.items():
            written.replace(place)
    finally:
        for written in partial.values():
            written.unlink(missing_ok=True)
    return paths


def read_facts(opened: Image.Image) -> dict[str, str]:
    """What a file of ours says of how it was made, as `save` wrote it; empty where it says nothing."""
    if opened.format == "PNG":
        return {str(key): str(value) for key, value in getattr(opened, "text", {}).items()}
    try:
        found: Any = json.loads(str(opened.getexif().get(_DESCRIPTION, "")))
    except ValueError:
        return {}
    facts = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    return {key: str(value) for key, value in facts.items()}


def _told(made: Image.Image, form: str) -> dict[str, Any]:
    """Facts as an argument of Pillow's writer."""
    if form == "PNG":
        text = PngImagePlugin.PngInfo()
        for key, value in made.info.items():
            text.add_itxt(str(key), str(value))
        return {"pnginfo": text}
    exif = Image.Exif()
    exif[_DESCRIPTION] = json.dumps({str(key): str(value) for key, value in made.info.items()})
    if len(exif.tobytes()) > _LONGEST:
        raise UnsupportedError(f"what made the picture is too long for the metadata of a {form}. Write a PNG, or no metadata.")
    return {"exif": exif}

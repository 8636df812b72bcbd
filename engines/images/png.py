"""Arrays → pictures, and pictures → PNG, JPEG and WebP files that say how they were made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, cast
from uuid import uuid4

import numpy as np
from PIL import Image, PngImagePlugin

from engines.disk import writing
from engines.errors import UnsupportedError

#: As Pillow names the formats that pictures are written in.
Format = Literal["PNG", "JPEG", "WEBP"]
#: Ending → format.
_FORMATS: Mapping[str, Format] = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
#: Nothing that the eye sees is lost; a PNG alone keeps every number, at a level that takes half the time of Pillow's own for 5%
#: more bytes.
_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "PNG": {"compress_level": 4},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95},
}
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


def places(path: Path, count: int) -> list[Path]:
    """Where so many pictures go: `path`, or `path` with -1, -2 … before the suffix when there are several.

    Raises:
        UnsupportedError: the path's ending is that of no format of ours.

    """
    _format(path)
    return [path] if count == 1 else [path.with_stem(f"{path.stem}-{index}") for index in range(1, count + 1)]


def save(pictures: Sequence[Image.Image], path: Path, *, metadata: bool = True) -> list[Path]:
    """Write files with their facts inside, each to its place.

    Raises:
        UnsupportedError, MachineError: as for `places` and `write`.

    """
    paths = places(path, len(pictures))
    for made, place in zip(pictures, paths, strict=True):
        write(made, place, metadata=metadata)
    return paths


def write(made: Image.Image, path: Path, *, metadata: bool = True) -> None:
    """Write one file of the format that the path ends in: beside its place, and put there when it is whole.

    Its facts go in as text of a PNG, or in the EXIF description of a JPEG or WebP as JSON, unless `metadata` is false.

    Raises:
        UnsupportedError: the path's ending is none of ours, or the facts are too long for a JPEG.
        MachineError: the disk is full, or the like.

    """
    data = encode(made, _format(path), metadata=metadata)
    partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}.partial")
    with writing(path.parent, f"writing {path}"):
        try:
            partial.write_bytes(data)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def encode(made: Image.Image, form: Format, *, metadata: bool = True, quality: int | None = None) -> bytes:
    """Return the bytes of a file of that format; facts as for `write`.

    `quality`, 1 to 100, is of JPEG and WebP; by default one at which the eye sees no loss.

    Raises:
        UnsupportedError: the facts are too long for a JPEG.

    """
    told = _told(made, form) if metadata else {}
    options = {**_OPTIONS[form], **({"quality": quality} if quality and form != "PNG" else {})}
    file = BytesIO()
    # Facts in `info` are ours to write, not Pillow's, which takes some names of it as options of its own.
    Image.fromarray(np.asarray(made), "RGB").save(file, format=form, **options, **told)
    return file.getvalue()


def read_facts(opened: Image.Image) -> dict[str, str]:
    """What a file of ours says of how it was made, as `write` wrote it; empty where it says nothing."""
    if opened.format == "PNG":
        return {str(key): str(value) for key, value in getattr(opened, "text", {}).items()}
    try:
        found: Any = json.loads(str(opened.getexif().get(_DESCRIPTION, "")))
    except ValueError:
        return {}
    facts = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    return {key: str(value) for key, value in facts.items()}


def _format(path: Path) -> Format:
    """The format that a path's ending asks for, as Pillow names it."""
    form = _FORMATS.get(path.suffix.lower())
    if form is None:
        raise UnsupportedError(f"{path}: pictures are written as PNG, JPEG or WebP. End the name in {', '.join(_FORMATS)}.")
    return form


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

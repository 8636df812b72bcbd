"""What clients send, read with suspicion: bodies of a bounded size, fields that are known, pictures that are no bombs."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping
from typing import Any, TypeVar

from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from engines.plugins import did_you_mean
from engines.serve.refusals import Refusal, invalid

_Body = TypeVar("_Body", bound=BaseModel)
#: What a browser or a program sends; other readers of Pillow are never asked.
_FORMATS = ("PNG", "JPEG", "WEBP")
#: Of a form: more than any request of ours has.
_FIELDS, _FILES = 64, 8


async def body(request: Request, kind: type[_Body]) -> _Body:
    """Read a JSON body; raise Refusal for another one, and for what it must not say."""
    _require_type(request, "application/json")
    try:
        return kind.model_validate_json(await request.body() or b"{}")
    except ValidationError as error:
        raise _invalid(error, kind) from error


async def form(request: Request) -> FormData:
    """Read a multipart body; whoever calls closes it. Raise Refusal for another one."""
    _require_type(request, "multipart/form-data")
    try:
        return await request.form(max_files=_FILES, max_fields=_FIELDS, max_part_size=2**20)
    except MultiPartException as error:
        raise invalid(f"the form cannot be read: {error.message}") from error


def fields(texts: Mapping[str, str], kind: type[_Body]) -> _Body:
    """Read a form's texts; raise Refusal for what they must not say."""
    try:
        return kind.model_validate_strings({**texts})
    except ValidationError as error:
        raise _invalid(error, kind) from error


def _require_type(request: Request, wanted: str) -> None:
    """Raise Refusal for a body of another type: what a page elsewhere may send unasked is never of these."""
    told = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if told != wanted:
        raise Refusal(415, f"send {wanted}, and a header content-type that says so; this is {told or 'untyped'}.", "content_type")


def _invalid(error: ValidationError, kind: type[BaseModel]) -> Refusal:
    problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(map(str, problem["loc"])) or None
    if problem["type"] == "extra_forbidden":
        near = did_you_mean(str(where), list(kind.model_fields))
        return Refusal(400, f"unknown field {where!r}{near}.", "unknown_parameter", where)
    if problem["type"] == "json_invalid":
        return Refusal(400, f"the body is no JSON: {problem['msg']}.", "invalid_json")
    if problem["type"] == "missing":
        return Refusal(400, f"{where} is missing. Give it.", "missing_required_parameter", where)
    return invalid(f"{where or 'the body'}: {problem['msg']}.", where)


def numbers(values: Mapping[str, Any], what: str) -> dict[str, float]:
    """The same as numbers; raise Refusal for what is none."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise invalid(f"{what}.{name} is {value!r}, and no number.", what)
    return {name: float(value) for name, value in values.items()}


def from_base64(text: str, limit: int, what: str) -> Image.Image:
    """Read a picture from base64, or from a data URL; no other URL is ever followed."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    elif "://" in text[:16]:
        raise invalid(f"{what} is a URL, and this server fetches nothing. Send the picture itself, as base64.", what)
    try:
        return picture(base64.b64decode("".join(text.split()), validate=True), limit, what)
    except (binascii.Error, ValueError) as error:
        raise invalid(f"{what} is no base64: {error}. Send a PNG, JPEG or WebP file as base64.", what) from error


async def from_upload(upload: Any, limit: int, what: str) -> Image.Image:  # noqa: ANN401 - what a form may hold
    """Read a picture that was sent as a file of a form."""
    if not isinstance(upload, UploadFile):
        raise invalid(f"{what} must be a file: a PNG, JPEG or WebP.", what)
    return picture(await upload.read(), limit, what)


def picture(data: bytes, limit: int, what: str) -> Image.Image:
    """Read a PNG, JPEG or WebP of at most `limit` pixels, turned upright; its size is checked before it is unpacked."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
            if opened.width * opened.height > limit:
                text = f"{what} has {opened.width}x{opened.height} pixels, and {limit} are allowed. Make it smaller."
                raise Refusal(413, text, "too_large", what)
            opened.load()
            return ImageOps.exif_transpose(opened)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Refusal(413, f"{what} is too large: {error}. Send a smaller picture.", "too_large", what) from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise invalid(f"{what} cannot be read as a picture. Send a PNG, JPEG or WebP.", what) from error

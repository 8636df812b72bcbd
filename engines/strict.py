"""The one kind of data class that crosses a file boundary: immutable, typed, closed to unknown fields, read with suspicion."""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from engines.errors import BundleError


def _each_once(numbers: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(numbers)) != len(numbers):
        raise ValueError(f"{list(numbers)} must name each number once")
    return numbers


def _ascending(places: tuple[int, ...]) -> tuple[int, ...]:
    if list(places) != sorted({*places}):
        raise ValueError(f"{list(places)} must be in ascending order")
    return places


#: Places in a sequence from 0 on, each after the one before it.
Ascending = Annotated[tuple[Annotated[int, Field(ge=0, le=63)], ...], AfterValidator(_ascending)]
#: The same in any order.
Ordered = Annotated[tuple[Annotated[int, Field(ge=0, le=63)], ...], AfterValidator(_each_once)]


class Frozen(BaseModel):
    """Base of options, signatures and manifest entries: frozen, and an unknown key is an error."""

    # What validates is built when it is first needed: an import then costs nothing for models that a program does not read.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    @classmethod
    def parse(cls, data: bytes, where: Path) -> Self:
        """Read JSON strictly: no coercion, no unknown key.

        Raises:
            BundleError: with the first five problems, and `where` they are.

        """
        try:
            return cls.model_validate_json(data, strict=True)
        except ValidationError as error:
            raise BundleError(f"{where} is not valid:\n{describe(error)}\nBuild the bundle again, or fetch it again.") from error

    @classmethod
    def read(cls, path: Path, limit: int) -> Self:
        """Read a JSON file of at most `limit` bytes.

        Raises:
            BundleError: as for `read_bytes`, `read_json` and `parse`.

        """
        data = read_bytes(path, limit)
        read_json(data, path)
        return cls.parse(data, path)


def describe(error: ValidationError) -> str:
    """At most five problems, one line each: the path to the value, and what is wrong with it."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [f"  {'.'.join(map(str, problem['loc'])) or 'all'}: {problem['msg']}"[:300] for problem in problems[:5]]
    return "\n".join([*lines, f"  and {len(problems) - 5} more"] if len(problems) > 5 else lines)


def read_bytes(path: Path, limit: int) -> bytes:
    """Read a regular file of at most `limit` bytes; a link, a pipe or a longer file is a BundleError."""
    if regular(path) > limit:
        raise BundleError(f"{path} must be a file of at most {limit} bytes. It will not be read.")
    return path.read_bytes()


def regular(path: Path) -> int:
    """Size in bytes of a regular file that this user may read, or of the blob that stands for it in the Hugging Face hub's cache.

    Raises:
        BundleError: it is missing, another link, a folder or a device, or not this user's to read.

    """
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode) and (blob := _blob(path)):
            status = blob.lstat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleError(f"{path} is missing. Is its folder a bundle, and was it copied whole?") from error
    except PermissionError as error:
        raise BundleError(f"{path} may not be read by this user. Have its owner allow it.") from error
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"{path} must be a file, not a link, a folder or a device. It will not be read.")
    if not os.access(path, os.R_OK):
        raise BundleError(f"{path} may not be read by this user. Have its owner allow it.")
    return status.st_size


def _blob(link: Path) -> Path | None:
    """Where a link of the hub's cache leads, from `REPO/snapshots/REVISION/…` to `REPO/blobs/NAME`; None for every other link."""
    folder = link.parent.resolve()
    for snapshot in (folder, *folder.parents):
        if snapshot.parent.name == "snapshots":
            try:
                target = Path(os.path.realpath(link, strict=True))
            except OSError:
                return None
            return target if target.parent == snapshot.parent.parent / "blobs" else None
    return None


def read_json(data: bytes, where: Path) -> Any:  # noqa: ANN401 - that is what JSON holds
    """Parse JSON as its standard defines it: UTF-8, no key twice in one object, no NaN or infinity.

    Raises:
        BundleError: it is anything else.

    """
    try:
        value = json.loads(data.decode(), object_pairs_hook=_once, parse_float=_finite, parse_constant=_finite)
        json.dumps(value, ensure_ascii=False).encode()  # refuses half a surrogate pair, which nothing could print
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where} is damaged: {error}. Build the bundle again, or fetch it again.") from error
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is not a number that JSON can hold")
    return number

"""Pictures and their captions: of a folder, or of webdataset's tar files. Needs no torch."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from engines.errors import RecipeError
from engines.plugins import did_you_mean

SUFFIXES = (".jpeg", ".jpg", ".png", ".webp")
#: One JSON object a line, with `file_name` and `text`, as the `datasets` library's image folders have it.
METADATA = "metadata.jsonl"
_SHOWN = 5


@dataclass(frozen=True)
class CaptionedImage:
    """An image file's bytes, and what it shows, in words.

    Attributes:
        name: what messages call it.
        read: gives the file's bytes; raises OSError where that fails.

    """

    name: str
    caption: str
    read: Callable[[], bytes]


def pictures(place: Path, where: str) -> list[CaptionedImage]:
    """Every picture below a folder, or in tar files, with its caption, in the order of their names.

    Captions stand in `metadata.jsonl`, or each in a `.txt` or `.json` of its picture's name, as webdataset has them.

    Args:
        place: a folder, a `.tar` file, or a pattern of such (`shards/*.tar`); a folder with `.tar` files means those.
        where: how a message begins.

    Raises:
        RecipeError: no such place, no pictures, captions without pictures, pictures without captions.

    """
    shards = _shards(place)
    if not shards and not place.is_dir():
        parent = place.parent
        near = [str(path) for path in sorted(parent.iterdir()) if path.is_dir()] if parent.is_dir() else []
        raise RecipeError(f"{where}: {place} is not a folder or .tar file{did_you_mean(str(place), near) if near else ''}")
    files = dict(entry for shard in shards for entry in _members(shard, where)) if shards else _below(place)
    images = {name: read for name, read in files.items() if _suffix(name) in SUFFIXES}
    captions = dict(_listed(files[METADATA], place / METADATA, where) if METADATA in files else _beside(files, images, where))
    problems = [
        f"{where}: {len(names)} {what} in {place}: {', '.join(names[:_SHOWN])}{' …' if len(names) > _SHOWN else ''}"
        for what, names in (
            ("captions without pictures", sorted(captions.keys() - images.keys())),
            ("pictures without captions", sorted(images.keys() - captions.keys())),
        )
        if names
    ]
    if not images and not problems:
        problems = [f"{where}: there is no picture in {place}; it takes {', '.join(SUFFIXES)} with captions"]
    if problems:
        raise RecipeError(problems)
    return [CaptionedImage(name, captions[name], read) for name, read in sorted(images.items())]


def there(place: Path) -> bool:
    """Whether `pictures` would find files at this place."""
    return place.is_dir() or bool(_shards(place))


def digest(found: list[CaptionedImage]) -> str:
    """SHA-256 over pictures and captions, in order."""
    total = hashlib.sha256()
    for picture in found:
        total.update(hashlib.sha256(picture.read()).digest())
        total.update(json.dumps([picture.name.rpartition("/")[2], picture.caption]).encode())
    return total.hexdigest()


#: Name → what reads the bytes.
Files = Mapping[str, Callable[[], bytes]]


def _suffix(name: str) -> str:
    return Path(name).suffix.lower()


def _below(folder: Path) -> Files:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes for path in found}


def _shards(place: Path) -> list[Path]:
    if place.suffix == ".tar":
        return [place] if place.is_file() else sorted(place.parent.glob(place.name))
    return sorted(place.glob("*.tar")) if place.is_dir() else []


def _members(shard: Path, where: str) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Files of a tar file that is not compressed, which are read where they lie."""
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                if member.isfile():
                    yield f"{shard.name}/{member.name}", partial(_part, shard, member.offset_data, member.size)
    except tarfile.TarError as error:
        raise RecipeError(f"{where}: {shard} is not a whole tar file without compression: {error}") from error


def _part(file: Path, start: int, size: int) -> bytes:
    with file.open("rb") as opened:
        opened.seek(start)
        return opened.read(size)


def _listed(read: Callable[[], bytes], file: Path, where: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(read().decode().splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise RecipeError(f"{where}: {file}, line {number}, is not JSON: {error}") from error
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("file_name", "text")):
            raise RecipeError(f'{where}: {file}, line {number}, must be {{"file_name": "a.png", "text": "its caption"}}')
        yield entry["file_name"], entry["text"]


def _beside(files: Files, images: Files, where: str) -> Iterator[tuple[str, str]]:
    """Captions in files of their own: a `.txt`, else a `.json` with "caption" or "text" in it."""
    named = {_stem(name): name for name in images}
    texts = {_stem(name) for name in files if _suffix(name) == ".txt"}
    for name, read in files.items():
        if _suffix(name) == ".txt":
            yield named.get(_stem(name), name), read().decode().strip()
        elif _suffix(name) == ".json" and _stem(name) in named.keys() - texts:
            yield named[_stem(name)], _told(name, read, where)


def _told(name: str, read: Callable[[], bytes], where: str) -> str:
    try:
        entry = json.loads(read())
    except ValueError as error:
        raise RecipeError(f"{where}: {name} is not JSON: {error}") from error
    told = [entry[key] for key in ("caption", "text") if isinstance(entry.get(key), str)] if isinstance(entry, dict) else []
    if not told:
        raise RecipeError(f'{where}: {name} has neither "caption" nor "text"')
    return told[0]


def _stem(name: str) -> str:
    """What the files of one picture share. In tar files that is everything before the first dot, as webdataset reads them."""
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}{file.partition('.')[0] if '.tar/' in name else Path(file).stem}"

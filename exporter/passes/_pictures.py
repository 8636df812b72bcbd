"""A folder of pictures and their captions. Needs no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engines.errors import RecipeError
from engines.plugins import did_you_mean

SUFFIXES = (".jpeg", ".jpg", ".png", ".webp")
#: One JSON object a line, with `file_name` and `text`, as the `datasets` library's image folders have it.
METADATA = "metadata.jsonl"
_SHOWN = 5


@dataclass(frozen=True)
class Picture:
    """An image file and what it shows, in words."""

    file: Path
    caption: str


def pictures(folder: Path, where: str) -> list[Picture]:
    """Every picture below a folder with its caption, in the order of their names.

    Captions stand in `metadata.jsonl`, or each in a `.txt` of its picture's name.

    Raises:
        RecipeError: no such folder, no pictures, captions without pictures, pictures without captions; begins with `where`.

    """
    if not folder.is_dir():
        parent = folder.parent
        near = [str(path) for path in sorted(parent.iterdir()) if path.is_dir()] if parent.is_dir() else []
        raise RecipeError(f"{where}: {folder} is not a folder{did_you_mean(str(folder), near) if near else ''}")
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    images = {name: path for name, path in files.items() if path.suffix.lower() in SUFFIXES}
    captions = dict(_listed(files[METADATA], where) if METADATA in files else _beside(files, images))
    problems = [
        f"{where}: {len(names)} {what} in {folder}: {', '.join(names[:_SHOWN])}{' …' if len(names) > _SHOWN else ''}"
        for what, names in (
            ("captions without pictures", sorted(captions.keys() - images.keys())),
            ("pictures without captions", sorted(images.keys() - captions.keys())),
        )
        if names
    ]
    if not images and not problems:
        problems = [f"{where}: there is no picture in {folder}; it takes {', '.join(SUFFIXES)} with captions"]
    if problems:
        raise RecipeError(problems)
    return [Picture(path, captions[name]) for name, path in images.items()]


def digest(found: list[Picture]) -> str:
    """SHA-256 over pictures and captions, in order."""
    total = hashlib.sha256()
    for picture in found:
        with picture.file.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
        total.update(json.dumps([picture.file.name, picture.caption]).encode())
    return total.hexdigest()


def _listed(file: Path, where: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise RecipeError(f"{where}: {file}, line {number}, is not JSON: {error}") from error
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("file_name", "text")):
            raise RecipeError(f'{where}: {file}, line {number}, must be {{"file_name": "a.png", "text": "its caption"}}')
        yield entry["file_name"], entry["text"]


def _beside(files: dict[str, Path], images: dict[str, Path]) -> Iterator[tuple[str, str]]:
    named = {path.with_suffix("").as_posix(): name for name, path in ((name, Path(name)) for name in images)}
    for name, path in files.items():
        if path.suffix == ".txt":
            yield named.get(Path(name).with_suffix("").as_posix(), name), path.read_text(encoding="utf-8").strip()

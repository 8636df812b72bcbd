"""The on-disk format, and the only door between the halves.

A bundle is a directory: `manifest.json`, and the files that it lists with size and SHA-256. Nothing else is read: no pickle,
no code.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from engines.disk import FULL, writing
from engines.errors import BundleError, UnsupportedError
from engines.guidance import Guidance
from engines.manifest import (
    FORMAT,
    Defaults,
    Draft,
    EngineFiles,
    File,
    Manifest,
    Onnx,
    PartEntry,
    SamplerEntry,
    Tokenizer,
    Verdict,
)
from engines.strict import read_bytes, read_json
from engines.upgrade import upgraded
from engines.wiring import Role

__all__ = [
    "FORMAT",
    "MANIFEST",
    "Bundle",
    "Defaults",
    "Draft",
    "EngineFiles",
    "File",
    "Guidance",
    "Manifest",
    "Onnx",
    "PartEntry",
    "Role",
    "SamplerEntry",
    "Tokenizer",
    "Verdict",
    "draft",
    "publish",
    "write",
]
MANIFEST = "manifest.json"
#: Folders of this name hold what a backend learns while it runs; they come and go, and are no part of the bundle.
_CACHE = "cache"
_LIMIT = 16 * 2**20


class Bundle:
    """An opened bundle: its manifest, and the only way to its files.

    Attributes:
        folder: where it lies.
        manifest: what it says of itself, checked.

    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self._checked: set[str] = set()

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Read and check the manifest; files are checked when they are first asked for.

        Raises:
            BundleError: damaged, changed after it was written, or of a newer format.

        """
        where = Path(path) / MANIFEST
        data = read_bytes(where, _LIMIT)
        content = read_json(data, where)
        if not isinstance(content, dict):
            raise BundleError(f"{where} must hold an object. Build the bundle again, or fetch it again.")
        _compatible(content.get("format"), where)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        if content.get("digest") != _digest(content):  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
            raise BundleError(f"{where} was changed after it was written: its digest is another. Fetch the bundle again.")
        found = upgraded(content)  # pyright: ignore[reportUnknownArgumentType]
        return cls(Path(path), Manifest.parse(data if found is content else json.dumps(found).encode(), where))

    def path(self, relative: str) -> Path:
        """Path of a listed file, checked once: in the folder, not behind a link, of the listed size and SHA-256.

        Raises:
            BundleError: one of these does not hold.

        """
        entry = self.manifest.files.get(relative)
        if entry is None:
            raise BundleError(f"{relative} is not a file of the bundle {self.folder}. Its manifest lists every file.")
        path = self.folder / relative
        if relative not in self._checked:
            for above in list(Path(relative).parents)[:-1]:
                if (self.folder / above).is_symlink():
                    raise BundleError(f"{self.folder / above} is a link; a bundle holds none. Fetch the bundle again.")
            if (found := _measure(path)) != entry:
                raise BundleError(
                    f"{path} is damaged: {found.size} bytes, SHA-256 {found.sha256[:12]}…; the manifest says {entry.size} bytes, "
                    f"{entry.sha256[:12]}…. Build the bundle again, or fetch it again."
                )
            self._checked.add(relative)
        return path

    def verify(self) -> None:
        """Check every file that the manifest lists; raise BundleError at the first that is wrong."""
        for relative in sorted(self.manifest.files):
            self.path(relative)


def write(folder: Path, draft: Draft) -> Bundle:
    """Measure every file in `folder`, write its manifest last, and open the result.

    The same draft and files give the same bytes. A manifest that is there already is replaced in one step.

    Raises:
        BundleError: the folder holds a link or an unfit name, or lacks a file that the draft names.
        MachineError: the disk is full, or the like.

    """
    partial = folder / f".{MANIFEST}.partial"
    own = (folder / MANIFEST, partial)
    listed = [path for path in folder.rglob("*") if _CACHE not in path.relative_to(folder).parts[:-1] and path not in own]
    found = sorted(path for path in listed if path.is_symlink() or not path.is_dir())
    files = {path.relative_to(folder).as_posix(): _measure(path).model_dump() for path in found}
    content: dict[str, Any] = {**draft.model_dump(mode="json"), "format": FORMAT, "files": files}
    content["digest"] = _digest(content)
    data = (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
    Manifest.parse(data, folder / MANIFEST)
    with writing(folder, f"writing {folder / MANIFEST}"):
        partial.write_bytes(data)
        partial.replace(folder / MANIFEST)
    return Bundle.open(folder)


def draft(manifest: Manifest, **changes: Any) -> Draft:  # noqa: ANN401 - fields of the draft
    """Take the draft back out of a manifest, with changes, to `write` it again."""
    content: dict[str, Any] = {name: getattr(manifest, name) for name in Draft.model_fields}
    return Draft(**{**content, **changes})


def publish(temporary: Path, final: Path) -> None:
    """Put a finished bundle in its place on the same filesystem, replacing the one that is there.

    Until the new one is in place the old one is whole: under its name, or put back there when something fails.

    Raises:
        UnsupportedError: `final` is something else than a bundle or an empty folder.
        OSError: a file could not be renamed or removed.

    """
    Bundle.open(temporary)
    require_place(final)
    if not final.exists():
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary.rename(final)
        return
    final = final.resolve()  # a link to a bundle stays, and leads to the new one
    aside = final.with_name(f".{final.name}.{uuid4().hex[:8]}.old")
    final.rename(aside)
    try:
        temporary.rename(final)
    except BaseException:
        aside.rename(final)
        raise
    shutil.rmtree(aside)


def require_place(final: Path) -> None:
    """Raise UnsupportedError where something else than a bundle or an empty folder would be replaced."""
    final = final.resolve()
    if final.exists() and (not final.is_dir() or any(final.iterdir())):
        try:
            Bundle.open(final)
        except BundleError as error:
            raise UnsupportedError(
                f"{final} is not a whole bundle, so it is not replaced. Remove it, or name another."
            ) from error


def place(source: Path, destination: Path) -> None:
    """Put a finished file into a folder as a file of its own: a clone where the file system shares blocks, else a copy.

    Not a hard link: ONNX's own readers refuse weights in a file that has two names.
    """
    with writing(destination, f"writing {destination}"):
        destination.parent.mkdir(parents=True, exist_ok=True)
        if not _cloned(source, destination):
            shutil.copyfile(source, destination)


def _cloned(source: Path, destination: Path) -> bool:
    """Whether the kernel made the copy: it shares blocks on Btrfs, XFS and the like, and copies them elsewhere."""
    if not hasattr(os, "copy_file_range"):
        return False  # not Linux
    with source.open("rb") as read, destination.open("xb") as written:
        left = os.fstat(read.fileno()).st_size
        try:
            while left and (moved := os.copy_file_range(read.fileno(), written.fileno(), left)):
                left -= moved
        except OSError as error:
            if error.errno in FULL:
                raise
            return False  # between these two file systems it cannot
    return not left


def _compatible(found: object, where: Path) -> None:
    if type(found) is int and found > FORMAT:
        raise BundleError(f"{where} has format {found}; this program reads up to {FORMAT}. Install a newer t2iexport.")
    if type(found) is not int or found < 1:
        raise BundleError(f"{where} has no format number, so it is not a bundle's manifest. Name the folder of a bundle.")


def _digest(content: dict[str, Any]) -> str:
    """SHA-256 of the content as JSON, without `digest` itself; whitespace and the order of keys do not count."""
    rest = {key: value for key, value in content.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _measure(path: Path) -> File:
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleError(f"{path} is missing. Was the bundle copied whole?") from error
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"{path} must be a file, not a link, a folder or a device. A bundle holds nothing else.")
    with path.open("rb") as file:
        return File(size=status.st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())

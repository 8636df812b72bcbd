"""The on-disk format, and the only door between the halves.

A bundle is a directory: `manifest.json`, and the files that it lists with size and SHA-256. Nothing else is read: no pickle,
no code.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
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
from engines.strict import read_bytes, read_json, regular
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
    "measure",
    "publish",
    "revise",
    "write",
]
MANIFEST = "manifest.json"
#: Folders of this name hold what a backend learns while it runs; they come and go, and are no part of the bundle.
_CACHE = "cache"
_LIMIT = 16 * 2**20

#: What `link` says where the filesystem has no hard links, or it is another one.
_UNLINKABLE = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP}


class Bundle:
    """An opened bundle: its manifest, and the only way to its files.

    Attributes:
        folder: where it lies.
        manifest: what it says of itself, checked.

    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self._checked: dict[str, tuple[int, ...]] = {}

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
        _compatible(content.get("format"), where)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType] - unchecked JSON
        if content.get("digest") != _digest(content):  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType] - unchecked JSON
            raise BundleError(f"{where} was changed after it was written: its digest is another. Fetch the bundle again.")
        found = upgraded(content)  # pyright: ignore[reportUnknownArgumentType] - unchecked JSON
        return cls(Path(path), Manifest.parse(data if found is content else json.dumps(found).encode(), where))

    def path(self, relative: str) -> Path:
        """Path of a listed file, checked once, and again if it was replaced: in the folder, not behind a link, as it is listed.

        Raises:
            BundleError: one of these does not hold.

        """
        entry = self.manifest.files.get(relative)
        if entry is None:
            raise BundleError(f"{relative} is not a file of the bundle {self.folder}. Its manifest lists every file.")
        path = self.folder / relative
        if self._checked.get(relative) != (seen := _identity(path)):
            for above in list(Path(relative).parents)[:-1]:
                if (self.folder / above).is_symlink():
                    raise BundleError(f"{self.folder / above} is a link; a bundle holds none. Fetch the bundle again.")
            if (found := measure(path)) != entry:
                raise BundleError(
                    f"{path} is damaged: {found.size} bytes, SHA-256 {found.sha256[:12]}…; the manifest says {entry.size} bytes, "
                    f"{entry.sha256[:12]}…. Build the bundle again, or fetch it again."
                )
            self._checked[relative] = seen
        return path

    def verify(self) -> None:
        """Check every file that the manifest lists; raise BundleError at the first that is wrong."""
        for relative in sorted(self.manifest.files):
            self.path(relative)


def write(folder: Path, draft: Draft, others: Mapping[str, File] | None = None) -> Bundle:
    """Measure every file in `folder`, which holds nothing but the bundle, write its manifest last, and open the result.

    The same draft and files give the same bytes. `others` are listed as well: files of the bundle that this one is to be
    published over, for which there is nothing new.

    Raises:
        BundleError: the folder holds a link or an unfit name, or lacks a file that the draft names.
        MachineError: the disk is full, or the like.

    """
    own = folder / MANIFEST
    listed = [path for path in folder.rglob("*") if _CACHE not in path.relative_to(folder).parts[:-1] and path != own]
    found = sorted(path for path in listed if path.is_symlink() or not path.is_dir())
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - opening a bundle needs none

    with ThreadPoolExecutor() as workers:  # a digest takes most of the time, and no lock of the interpreter
        files = dict(zip((path.relative_to(folder).as_posix() for path in found), workers.map(measure, found), strict=True))
    with writing(folder, f"writing {own}"):
        return _seal(folder, draft, {**(others or {}), **files})


def revise(bundle: Bundle, **changes: Any) -> Bundle:  # noqa: ANN401 - fields of the draft
    """Replace a bundle's manifest, in one step, by one with other receipts; it lists the same files, whatever lies beside."""
    return _seal(bundle.folder, draft(bundle.manifest, **changes), bundle.manifest.files)


def _seal(folder: Path, draft: Draft, files: Mapping[str, File]) -> Bundle:
    listed = {name: file.model_dump() for name, file in files.items()}
    content: dict[str, Any] = {**draft.model_dump(mode="json"), "format": FORMAT, "files": listed}
    content["digest"] = _digest(content)
    data = (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
    Manifest.parse(data, folder / MANIFEST)
    partial = folder / f".{MANIFEST}.{uuid4().hex[:8]}.partial"
    try:
        partial.write_bytes(data)
        partial.replace(folder / MANIFEST)
    finally:
        partial.unlink(missing_ok=True)
    return Bundle.open(folder)


def draft(manifest: Manifest, **changes: Any) -> Draft:  # noqa: ANN401 - fields of the draft
    """Take the draft back out of a manifest, with changes, to `write` it again."""
    content: dict[str, Any] = {name: getattr(manifest, name) for name in Draft.model_fields}
    return Draft(**{**content, **changes})


def publish(temporary: Path, final: Path) -> None:
    """Put a finished bundle in its place, over the one that is there; `temporary` is used up.

    Only files that a manifest lists are handled: each is replaced in one step, the manifest last, and those that only the old
    manifest lists are removed. Whatever else lies there is its owner's and stays. Where something fails, the old bundle is put
    back; whoever reads it meanwhile finds files that are not those of the manifest, and says so.

    Raises:
        UnsupportedError: `final` is something else than a bundle or an empty folder (hidden files do not count), or a file that
            the bundle there does not list is in the way.
        OSError: a file could not be replaced or removed.

    """
    new = Bundle.open(temporary).manifest.files
    require_place(final)
    if not os.path.lexists(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary.rename(final)
        return
    final = final.resolve()  # a link to a bundle stays, and leads to the new one
    old = Bundle.open(final).manifest.files if (final / MANIFEST).exists() else {}
    everything = {path.relative_to(temporary).as_posix() for path in temporary.rglob("*") if not path.is_dir()}
    names = [*sorted(everything - {MANIFEST}), MANIFEST]
    gone = sorted(set(old) - set(new))
    _refuse(final, [*names, *gone], {name: file for name, file in new.items() if name in everything and name not in old})
    _exchange(temporary, final, names)
    for name in gone:
        (final / name).unlink(missing_ok=True)
        _tidy(final, name)
    shutil.rmtree(temporary)


def _refuse(final: Path, names: Iterable[str], added: Mapping[str, File]) -> None:
    """Raise UnsupportedError where a folder would be written through a link, or a file of somebody's be replaced."""
    for above in {above for name in names for above in list(Path(name).parents)[:-1]}:
        if (final / above).is_symlink():
            raise UnsupportedError(f"{final / above} is a link, and nothing is written through it. Remove it, or name another.")
    for name, file in added.items():
        path = final / name
        if os.path.lexists(path) and (path.is_symlink() or not path.is_file() or measure(path) != file):
            raise UnsupportedError(
                f"{path} is not of the bundle that lies there, so it is not replaced. Move it away, or name another folder."
            )


def _exchange(temporary: Path, final: Path, names: Sequence[str]) -> None:
    """Replace these files one after another; when one fails, put back what there was."""
    aside, done = temporary / ".old", list[str]()
    try:
        for name in names:
            place, kept = final / name, aside / name
            for parent in (place.parent, kept.parent):
                parent.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(place):
                _keep(place, kept)
            done.append(name)
            _move(temporary / name, place)
    except BaseException:
        for name in reversed(done):
            if os.path.lexists(aside / name):
                _move(aside / name, final / name)
            elif not os.path.lexists(temporary / name):
                (final / name).unlink()
        for name in names:
            _tidy(final, name)
        raise


def _keep(path: Path, kept: Path) -> None:
    """Have a file under a second name, or under that alone where the filesystem has no hard links."""
    try:
        os.link(path, kept, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _UNLINKABLE:
            raise
        shutil.move(path, kept)


def _move(source: Path, destination: Path) -> None:
    """Replace a file in one step, from another filesystem too: a bundle's folder may be a mount of its own."""
    try:
        source.replace(destination)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        near = destination.with_name(f".{destination.name}.{uuid4().hex[:8]}.partial")
        try:
            shutil.copyfile(source, near)
            near.replace(destination)
        finally:
            near.unlink(missing_ok=True)
        source.unlink()


def _tidy(folder: Path, name: str) -> None:
    """Remove the folders that a file was in, as far as they are empty."""
    for above in list(Path(name).parents)[:-1]:
        with contextlib.suppress(OSError):  # not empty, or never there
            (folder / above).rmdir()


def require_place(final: Path) -> None:
    """Raise UnsupportedError where something else than a bundle or a folder of nothing but hidden files would be written to."""
    final = final.resolve()
    if final.exists() and (
        not final.is_dir() or any(path.name == MANIFEST or not path.name.startswith(".") for path in final.iterdir())
    ):
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


def _identity(path: Path) -> tuple[int, ...]:
    """What changes when a file is replaced or written to; nothing where there is none."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def measure(path: Path) -> File:
    """Size and SHA-256 of a regular file; raise BundleError where there is none."""
    size = regular(path)
    with path.open("rb") as file:
        return File(size=size, sha256=hashlib.file_digest(file, "sha256").hexdigest())

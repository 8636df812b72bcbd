"""Content-keyed store of finished stages: a killed build loses nothing and corrupts nothing, and a rebuild says why."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

from engines.disk import require_folder, writing
from engines.errors import MachineError
from exporter.stages.differences import reasons

ENTRY, FILES = "entry.json", "files"


@dataclass(frozen=True)
class Key:
    """What a stage's result depends on.

    Attributes:
        stage: what is done (`export`).
        subject: for whom (`unet, opset 20`).
        ingredients: options, inputs, code and versions, as JSON holds them.

    """

    stage: str
    subject: str
    ingredients: Mapping[str, Any]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the ingredients in canonical JSON."""
        content = {"stage": self.stage, "subject": self.subject, "ingredients": self.ingredients}
        return hashlib.sha256(_canonical(content)).hexdigest()

    def __str__(self) -> str:
        return self.digest


def key(
    stage: str,
    subject: str,
    *,
    options: Mapping[str, Any],
    inputs: Mapping[str, str],
    code: Mapping[str, str],
    versions: Mapping[str, str],
) -> Key:
    """Make a key of options (plain data), digests of inputs and of code, and versions of libraries."""
    ingredients = {"options": options, "inputs": inputs, "code": code, "versions": versions}
    return Key(stage, subject, json.loads(_canonical(ingredients)))


class Store:
    """Finished stages below one folder, `$XDG_CACHE_HOME/t2iexport` unless given.

    Args:
        root: the folder.
        say: told in a sentence what is waited for.
        making: told when a stage that was missing begins (seconds are None), and when it is done, with why it was missing.

    Attributes:
        root: the folder.
        ours: whether a stage is at work in another process of the same build, so that to wait for it is nothing to tell.

    """

    def __init__(
        self,
        root: Path | None = None,
        say: Callable[[str], None] = lambda _: None,
        making: Callable[[Key, float | None, str], None] = lambda *_: None,
    ) -> None:
        self.root, self._say, self._making = root or default_root(), say, making
        self.ours: Callable[[Key], bool] = lambda _: False
        for name in ("entries", "partial", "locks", "last", "unfinished"):
            try:
                require_folder(self.root / name)
            except MachineError as error:
                raise MachineError(f"the cache: {error}\n  It lies below $XDG_CACHE_HOME, else below ~/.cache.") from error
        self._sweep()

    def peek(self, wanted: Key) -> bool:
        """Whether the stage is there and whole."""
        return not self.why(wanted)

    def why(self, wanted: Key) -> str:
        """Why the stage must be made, in words; empty when it is there and whole.

        It is compared with the last result of the same stage and subject: `options.opset 20 → 23; torch 2.13.0 → 2.14.0`.
        """
        if damage := self._damage(wanted):
            return damage
        if self._entry(wanted).is_dir():
            return ""
        try:
            last = json.loads(self._last(wanted).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return "first build"
        return reasons(last, wanted.ingredients) or "its entry was removed from the cache"

    def took(self, wanted: Key) -> float | None:
        """Seconds that making the stage took, or None when it is not there."""
        entry = self._read(wanted)
        return None if entry is None else float(entry["seconds"])

    def folder(self, wanted: Key, make: Callable[[Path], None]) -> Path:
        """Return the folder of a finished stage, made first where it is missing or damaged.

        `make` fills an empty folder, which appears under its final name only when it is complete and on disk. A second process
        that wants the same stage waits for the first. Files of an entry cannot be written to.

        Raises:
            MachineError: there is no room; nothing half-made stays behind.

        """
        found = self._entry(wanted) / FILES
        if not self.why(wanted):
            self._remember(wanted)
            return found
        with self._lock(wanted):
            if why := self.why(wanted):
                self._make(wanted, make, why)
            self._remember(wanted)
        return found

    def unfinished(self, wanted: Key) -> Path:
        """A folder for a stage that takes long to leave off in: it survives a kill, and goes when the stage is finished."""
        folder = self.root / "unfinished" / wanted.digest
        folder.mkdir(exist_ok=True)
        return folder

    @contextlib.contextmanager
    def turn(self, place: Path) -> Iterator[None]:
        """Be the only build that writes to `place`; a second one waits."""
        name = hashlib.sha256(str(place.resolve()).encode()).hexdigest()
        with _flock(self.root / "locks" / name, lambda: self._say(f"waiting for another build of {place}")):
            yield

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Lend an empty folder on the store's disk, gone afterwards."""
        name = f"scratch-{uuid4().hex}"
        with _flock(self.root / "locks" / name) as locked:
            folder = self.root / "partial" / f"{name}.0"
            folder.mkdir()
            try:
                with writing(self.root, "building once more"):
                    yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
                locked.unlink()  # nobody else knows the name

    def _make(self, wanted: Key, make: Callable[[Path], None], why: str) -> None:
        self._making(wanted, None, why)
        partial = self.root / "partial" / f"{wanted.digest}.{uuid4().hex[:8]}"
        start = time.perf_counter()
        try:
            with writing(self.root, f"{wanted.stage} of {wanted.subject}"):
                made = partial / FILES
                made.mkdir(parents=True)
                make(made)
                seconds = time.perf_counter() - start
                files = {file.relative_to(made).as_posix(): _sealed(file) for file in _files(made)}
                entry = {"stage": wanted.stage, "subject": wanted.subject, "seconds": round(seconds, 3), "files": files}
                _write(partial / ENTRY, entry | {"ingredients": wanted.ingredients})
                for folder in (partial, *(path for path in partial.rglob("*") if path.is_dir())):
                    _sync(folder)
                final = self._entry(wanted)
                if final.exists():  # damaged
                    final.rename(partial.with_name(f"{wanted.digest}.{uuid4().hex[:8]}"))
                partial.rename(final)
                _sync(final.parent)
                shutil.rmtree(self.root / "unfinished" / wanted.digest, ignore_errors=True)
            self._making(wanted, seconds, why)
        finally:
            for left in (self.root / "partial").glob(f"{wanted.digest}.*"):
                shutil.rmtree(left, ignore_errors=True)

    def _damage(self, wanted: Key) -> str:
        """What is wrong with an entry that is there; empty when nothing is, or when it is not there."""
        folder = self._entry(wanted)
        if not folder.is_dir():
            return ""
        entry = self._read(wanted)
        if entry is None:
            return f"its entry was damaged: {ENTRY} is unreadable"
        for name, said in entry["files"].items():
            try:
                status = (folder / FILES / name).stat()
            except FileNotFoundError:
                return f"its entry was damaged: {name} is missing"
            if status.st_size != said["size"]:
                return f"its entry was damaged: {name} has {status.st_size} bytes instead of {said['size']}"
            if status.st_mtime_ns != said["mtime_ns"] and file_digest(folder / FILES / name) != said["sha256"]:
                return f"its entry was damaged: {name} has other content"
        return ""

    def _read(self, wanted: Key) -> dict[str, Any] | None:
        try:
            entry = json.loads((self._entry(wanted) / ENTRY).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return entry if isinstance(entry, dict) and {"files", "seconds"} <= entry.keys() else None

    def _remember(self, wanted: Key) -> None:
        last, content = self._last(wanted), _canonical(wanted.ingredients)
        # A hint for the next "why": it is worth neither a wait for the disk nor a failure when the disk is full.
        with contextlib.suppress(OSError):
            if not last.is_file() or last.read_bytes() != content:
                partial = last.with_suffix(f".{uuid4().hex[:8]}")
                partial.write_bytes(content)
                partial.replace(last)

    def _entry(self, wanted: Key) -> Path:
        return self.root / "entries" / wanted.digest

    def _last(self, wanted: Key) -> Path:
        return self.root / "last" / f"{hashlib.sha256(_canonical([wanted.stage, wanted.subject])).hexdigest()}.json"

    @contextlib.contextmanager
    def _lock(self, wanted: Key) -> Iterator[None]:
        def wait() -> None:
            if not self.ours(wanted):
                self._say(f"waiting for another process that makes {wanted.stage} of {wanted.subject}")

        with _flock(self.root / "locks" / wanted.digest, wait):
            yield

    def _sweep(self) -> None:
        """Remove what dead builds left half-made: theirs are the folders whose lock nobody holds."""
        for left in (self.root / "partial").iterdir():
            with contextlib.suppress(BlockingIOError), _flock(self.root / "locks" / left.name.partition(".")[0], None):
                shutil.rmtree(left, ignore_errors=True)


def default_root() -> Path:
    """`$XDG_CACHE_HOME/t2iexport`, else `~/.cache/t2iexport`; a relative XDG_CACHE_HOME is ignored, as its standard says."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "t2iexport"


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _flock(path: Path, wait: Callable[[], None] | None = None) -> Iterator[Path]:
    """Hold a lock that the system lets go when the process dies; without `wait`, BlockingIOError when another holds it."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if wait is None:
                raise
            wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield path


def _canonical(content: object) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _sealed(file: Path) -> dict[str, Any]:
    """Make a file read-only and durable, and measure it."""
    file.chmod(0o444)
    _sync(file)
    status = file.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": file_digest(file)}


def _write(path: Path, content: object) -> None:
    path.write_bytes(_canonical(content))
    _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

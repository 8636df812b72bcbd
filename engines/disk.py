"""What a machine refuses, in sentences: full disks, places that are not there or not ours, memory; outputs before the work."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Generator
from pathlib import Path
from uuid import uuid4

from engines.errors import MachineError, T2IError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
#: Of what the system refuses, that which is the machine's state. A file that is not there may be a mistake of this program.
_STATE = frozenset({
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.ENOLCK, errno.ESTALE, errno.EBUSY, errno.ETXTBSY, errno.ENODEV, errno.ENXIO),
})  # fmt: skip
#: Work that failed with less than this much left on the disk failed because of it: vendors' writers hide the errno.
_NOTHING_LEFT = 2**20


class DiskFull(MachineError):  # noqa: N818 - the name says what happened
    """A disk is full; the text names it."""

    def __init__(self, path: Path, doing: str) -> None:
        super().__init__(
            f"{doing}: the disk at {mounted_at(path)} is full ({_free(path) / 1e6:.1f} MB free).\n"
            f"  Free some, or work on another: the cache lies below $XDG_CACHE_HOME, a bundle where --output says."
        )


def refusal(error: BaseException, doing: str = "", path: Path | None = None) -> MachineError | None:
    """Say what an error tells of the machine; None where it may be a mistake of this program.

    Args:
        error: what was raised.
        doing: what was being done, for the text.
        path: what was being written, where the error names no file.

    """
    said = f"{doing}: " if doing else ""
    if isinstance(error, MemoryError):
        return MachineError(f"{said}memory ran out. Close other programs, or take a smaller batch, size or model.")
    if not isinstance(error, OSError) or error.errno not in FULL | _STATE:
        return None
    named = [Path(name) for name in (error.filename, error.filename2, path) if isinstance(name, str | Path)]
    if error.errno in FULL and named:  # whoever copies names the source as well, whose disk need not be the full one
        return DiskFull(min(named, key=_free), doing or "writing")
    where = f"{named[0]}: " if named else ""
    return MachineError(f"{said}{where}{error.strerror}. Is there room, and may this user read and write there?")


@contextlib.contextmanager
def writing(path: Path, doing: str) -> Generator[None]:
    """Turn what the machine refuses into MachineError; a full disk also where a vendor's writer gave it another name."""
    try:
        yield
    except T2IError:
        raise
    except Exception as error:
        if (told := refusal(error, doing, path)) is not None:
            raise told from error
        if isinstance(error, OSError) or _free(path) >= _NOTHING_LEFT:
            raise
        raise DiskFull(path, doing) from error


def require_file(path: Path) -> None:
    """Raise MachineError unless a file can be written at `path`; asked before the work that it is to hold."""
    # os.path's functions answer where this user may not look, too; pathlib's raise.
    if os.path.isdir(path):  # noqa: PTH112
        raise MachineError(f"{path} is a folder, so no file can be written there. Name a file in it.")
    if not os.path.isdir(path.parent):  # noqa: PTH112
        raise MachineError(f"{path} cannot be written: there is no folder {path.parent}. Make it, or name another.")
    if os.path.isfile(path) or not os.path.lexists(path):  # noqa: PTH113 - else a device or a pipe, such as /dev/stdout
        _try(path.with_name(f".{path.name}.{uuid4().hex[:8]}.partial"), path)


def require_folder(path: Path) -> None:
    """Make a folder where there is none; raise MachineError unless files can be written into it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(f"{path} cannot be made a folder: {error.strerror}. Name another.") from error
    _try(path / f".{uuid4().hex[:8]}.partial", path)


def _try(probe: Path, path: Path) -> None:
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
        if os.path.lexists(path) and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        if error.errno in FULL:
            raise DiskFull(path, f"writing {path}") from error
        raise MachineError(f"{path} cannot be written: {error.strerror}. Name another place.") from error


def mounted_at(path: Path) -> Path:
    """Mount point of the disk that holds a path, or would hold it."""
    path = path.absolute()
    while not os.path.ismount(path):
        path = path.parent
    return path


def _free(path: Path) -> int:
    return shutil.disk_usage(mounted_at(path)).free

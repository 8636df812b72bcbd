"""What a run of the smoke test found, on disk as soon as it is known; and one GPU shared by several processes that measure."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

#: Seconds in which the GPU ends what the stopped had asked of it.
_DRAIN = 0.3


class Record:
    """A JSON file that is written again whenever something is noted.

    Attributes:
        data: what is in it.

    """

    def __init__(self, path: Path) -> None:
        self.path, self.start = path, time.monotonic()
        self.data: dict[str, Any] = {}
        self._one = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)

    def note(self, *place: str, **found: Any) -> None:  # noqa: ANN401 - JSON
        """Note values under a place, and how many seconds after the start that was."""
        with self._one:
            here = self.data
            for name in place:
                here = here.setdefault(name, {})
            here.update(found)
            self.data["after_s"] = round(time.monotonic() - self.start, 1)
            partial = self.path.with_suffix(f".{os.getpid()}.part")
            partial.write_text(json.dumps(self.data, indent=1) + "\n")
            partial.replace(self.path)
        said = ", ".join(f"{name} {value}" for name, value in found.items() if name != "trace")
        print(f"[{self.data['after_s']:6.1f} s] {self.path.stem}: {' / '.join(place)}: {said}"[:400], flush=True)

    @contextlib.contextmanager
    def attempt(self, *place: str) -> Iterator[None]:
        """Note what goes wrong inside as a result of its own, and how long it took; the rest goes on."""
        began = time.perf_counter()
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever a vendor raises is what this tool is there to find out
            last = traceback.format_exc().splitlines()[-12:]
            self.note(
                *place, error=f"{type(error).__name__}: {error}"[:3000], trace=last, after=round(time.perf_counter() - began, 1)
            )


class Gate:
    """Everybody who works on one GPU, each known by a file that is named after its process; who measures stops the others.

    Args:
        folder: of the files, the same for all; whoever is no Gate may be put there by hand.

    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._own = folder, folder / str(os.getpid())
        self._lock, self._alone = (folder / "lock").open("a"), False
        self._own.touch()
        fcntl.flock(self._lock, fcntl.LOCK_SH)  # who comes while another measures was not stopped, and waits
        fcntl.flock(self._lock, fcntl.LOCK_UN)

    def alone(self, patience: float) -> bool:
        """Wait until nobody else measures, then stop the others, their children too; False if patience ended first."""
        end = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > end:
                    return False
                time.sleep(0.05)
            else:
                break
        self._alone = True
        _signal(self._folder, signal.SIGSTOP, os.getpid())
        time.sleep(_DRAIN)
        return True

    def share(self) -> None:
        """Let the others go on, if it was this one who stopped them."""
        if not self._alone:
            return
        self._alone = False
        _signal(self._folder, signal.SIGCONT, os.getpid())
        fcntl.flock(self._lock, fcntl.LOCK_UN)

    def leave(self) -> None:
        """Let the others go on, and do not be stopped any more."""
        self.share()
        self._own.unlink(missing_ok=True)
        self._lock.close()


def wake(folder: Path) -> None:
    """Let everybody go on, whom one that was killed had stopped."""
    _signal(folder, signal.SIGCONT)


def _signal(folder: Path, number: signal.Signals, but: int = 0) -> None:
    for file in folder.glob("[0-9]*"):
        if int(file.name) == but:
            continue
        try:
            process = psutil.Process(int(file.name))
            for each in (process, *process.children(recursive=True)):
                each.send_signal(number)
        except psutil.NoSuchProcess:  # it ended, and could not take its name away
            continue

"""What a run of the smoke test found, on disk as soon as it is known; and one GPU shared by several processes that measure."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any


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
    """Who prepares shares the GPU; who measures has it alone."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a")
        self.share()

    def share(self) -> None:
        """Prepare, beside others who do; waits for the one who measures."""
        fcntl.flock(self._file, fcntl.LOCK_UN)
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def alone(self, patience: float) -> bool:
        """Wait until nobody prepares or measures, or until patience ends; whether it is alone then."""
        fcntl.flock(self._file, fcntl.LOCK_UN)
        end = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > end:
                    return False
                time.sleep(0.05)
            else:
                return True

    def leave(self) -> None:
        """Let the next one in."""
        self._file.close()

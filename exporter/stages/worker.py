"""A second process that makes the denoiser's stages ahead of the build, into the same store.

It only saves time: the store hands each stage to whoever comes first, and the other waits. It tells the build what it begins and
what is done, a line of JSON each. What goes wrong here goes wrong again in the build itself, which reports it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from exporter.recipe.schema import Recipe
from exporter.stages.stage import Results, closure
from exporter.stages.store import Key, Store

if TYPE_CHECKING:
    from exporter.stages.plan import Plan

#: Who makes its stages, in a report.
SECOND = "the second process"
#: Seconds that may lie between its taking a lock and its word of that.
_MOMENT = 0.5
#: Bytes of weights up to which two processes side by side cost little memory: each holds the libraries once more.
SMALL = 512 * 2**20


@contextlib.contextmanager
def ahead(plan: Plan, store: Store, report: Callable[..., None]) -> Iterator[None]:
    """Keep a second process at work while the body runs, where the model is small and there is a processor for it.

    `report` is told what it does, from another thread.
    """
    files = {file for found in plan.checkpoint.files.values() for file in found}
    worthwhile = files and sum(file.stat().st_size for file in files) <= SMALL and (os.cpu_count() or 1) > 1
    waiting = [stage for stage in plan.stages if store.why(stage.key)] if worthwhile else []
    # Training is left to the build itself, which tells how it goes.
    if not any(stage.verb == "export" for stage in waiting) or any(stage.resumes for stage in waiting):
        yield
        return
    code = "from exporter.stages.worker import main; main()"
    command = [sys.executable, "-c", code, plan.recipe.name, str(plan.recipe.root.resolve()), str(store.root)]
    half = max(1, (os.cpu_count() or 2) // 2)
    environment = {"OMP_NUM_THREADS": str(half), **os.environ}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    # The recipe goes down the pipe, which stays open: when this process dies, however it dies, the other one sees its end.
    with subprocess.Popen(command, env=environment, **pipes) as process:  # noqa: S603
        pipe, told = process.stdin, process.stdout
        if pipe is None or told is None:
            raise RuntimeError("a process was started without the pipes that it was asked to have")
        events = _Events(plan, report)
        listening = threading.Thread(target=events.follow, args=(told,), daemon=True)
        listening.start()
        store.ours = events.at_work
        with contextlib.suppress(BrokenPipeError):  # it died at once; the build goes on alone
            pipe.write(plan.recipe.text.encode() + b"\0")
            pipe.flush()
        try:
            with _threads(half):
                yield
        finally:
            process.kill()
            listening.join()
            store.ours = lambda _: False


class _Events:
    """What the second process said of its stages, as the build's report and store ask for it."""

    def __init__(self, plan: Plan, report: Callable[..., None]) -> None:
        self._stages, self._report = {stage.name: stage for stage in plan.stages}, report
        self._running, self._changed, self._open = dict[tuple[str, str], str](), threading.Condition(), True

    def follow(self, lines: IO[bytes]) -> None:
        """Read to the end of the process, and pass on what it says."""
        for line in lines:
            verb, subject, seconds, why = json.loads(line)
            with self._changed:
                if seconds is None:
                    self._running[verb, subject] = why
                else:
                    self._running.pop((verb, subject), None)
                self._changed.notify_all()
            self._report(self._stages[verb, subject], seconds, why=why, by=SECOND)
        with self._changed:
            self._open = False
            self._changed.notify_all()
        for name, why in self._running.items():
            self._report(self._stages[name], math.nan, why=why, by=SECOND)

    def at_work(self, wanted: Key) -> bool:
        """Whether the process makes this stage; waits a moment, since it takes the lock before it says so."""
        name = wanted.stage, wanted.subject
        with self._changed:
            self._changed.wait_for(lambda: name in self._running or not self._open, _MOMENT)
            return self._open and name in self._running


@contextlib.contextmanager
def _threads(most: int) -> Iterator[None]:
    """At most so many of torch's threads here.

    Threads that wait for each other in two processes at once, on processors that they share, take several times as long.
    """
    import torch  # noqa: PLC0415 - where this is worthwhile, the build is about to load it

    before = torch.get_num_threads()
    torch.set_num_threads(min(before, most))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def main() -> None:
    """Make the denoiser's stages: what needs no recording first, since the build is recording."""
    name, root, store_root = sys.argv[1:]
    said = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries print

    def tell(wanted: Key, seconds: float | None, why: str) -> None:
        print(json.dumps([wanted.stage, wanted.subject, seconds, why]), file=said, flush=True)

    text = b"".join(iter(lambda: sys.stdin.buffer.read(1), b"\0")).decode()
    threading.Thread(target=_follow, daemon=True).start()
    from exporter.stages.plan import Plan  # noqa: PLC0415 - after the thread that ends this process has started

    plan, store = Plan(Recipe.parse(text, name, Path(root))), Store(Path(store_root), making=tell)
    denoiser = next(name for name, role in plan.family.roles.items() if role == "denoiser")
    part = plan.parts[denoiser]
    gates = {part.quantized.gate} if part.quantized else set()  # races, which the build runs when nothing else does
    wanted = closure(stage for stage in part.stages if stage not in gates)
    needed = [stage for stage in plan.stages if stage in wanted]
    needed.sort(key=lambda stage: any(each.verb == "record" for each in closure([stage])))
    # Engines of a GPU first, which take longest; the build makes the others meanwhile.
    quick = {stage for target, stage in part.engines.items() if plan.targets[denoiser][target].runs_on_cpu}
    needed.sort(key=lambda stage: stage in quick)
    results = Results(store)
    for stage in needed:
        results.folder(stage)


def _follow() -> None:
    """End with the build."""
    sys.stdin.buffer.read()
    os._exit(1)

"""A second process that makes the denoiser's stages ahead of the build, into the same store.

It only saves time: the store hands each stage to whoever comes first, and the other waits. What goes wrong here goes wrong again
in the build itself, which reports it; so this process is silent.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.recipe.schema import Recipe
from exporter.stages.stage import Results, closure
from exporter.stages.store import Store

if TYPE_CHECKING:
    from exporter.stages.plan import Plan

#: Bytes of weights up to which two processes side by side cost little memory: each holds the libraries once more.
SMALL = 512 * 2**20


@contextlib.contextmanager
def ahead(plan: Plan, store: Store) -> Iterator[None]:
    """Keep a second process at work while the body runs, where the model is small and there is a processor for it."""
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
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    # The recipe goes down the pipe, which stays open: when this process dies, however it dies, the other one sees its end.
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, **quiet) as process:  # noqa: S603
        pipe = process.stdin
        if pipe is None:
            raise RuntimeError("a process was started without the pipe that it was asked to have")
        with contextlib.suppress(BrokenPipeError):  # it died at once; the build goes on alone
            pipe.write(plan.recipe.text.encode() + b"\0")
            pipe.flush()
        try:
            with _threads(half):
                yield
        finally:
            process.kill()


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
    text = b"".join(iter(lambda: sys.stdin.buffer.read(1), b"\0")).decode()
    threading.Thread(target=_follow, daemon=True).start()
    from exporter.stages.plan import Plan  # noqa: PLC0415 - after the thread that ends this process has started

    plan, store = Plan(Recipe.parse(text, name, Path(root))), Store(Path(store_root))
    denoiser = next(name for name, role in plan.family.roles.items() if role == "denoiser")
    part = plan.parts[denoiser]
    gates = {part.quantized.gate} if part.quantized else set()  # races, which the build runs when nothing else does
    wanted = closure(stage for stage in part.stages if stage not in gates)
    needed = [stage for stage in plan.stages if stage in wanted]
    needed.sort(key=lambda stage: any(each.verb == "record" for each in closure([stage])))
    # Engines of a GPU first, which take longest; the build makes the others meanwhile.
    quick = {stage for target, stage in part.engines.items() if plan.targets[denoiser][target].on_processor}
    needed.sort(key=lambda stage: stage in quick)
    results = Results(store)
    for stage in needed:
        results.folder(stage)


def _follow() -> None:
    """End with the build."""
    sys.stdin.buffer.read()
    os._exit(1)

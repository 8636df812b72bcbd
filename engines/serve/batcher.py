"""Dynamic batching at the networks: calls of several threads become one call, whatever step each picture is at.

A denoiser takes one timestep per item, so pictures at different steps, with different guidance and prompts, share a batch.
`Pipeline.generate` runs unchanged, one thread a picture; only what it takes for a network is a door here, where calls that arrive
together are stacked, run at once, and divided again. So whatever a pipeline can do, a batch of pictures can.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from engines import sessions
from engines.bundle import Manifest
from engines.serve.jobs import Job
from engines.sessions import Network
from engines.signature import Signature

Arrays = Mapping[str, np.ndarray]
#: `observed(part, items, seconds)`, after each call of a network.
Observed = Callable[[str, int, float], None]


@dataclass(eq=False)
class _Call:
    """One thread's call: what it gives, and later what it gets. What is raised in a `with` of it is raised in that thread."""

    inputs: Arrays
    items: int
    shared: frozenset[str]
    number: int
    since: float = field(default_factory=time.perf_counter)
    outputs: dict[str, np.ndarray] | None = None
    error: BaseException | None = None

    @functools.cached_property
    def shape(self) -> tuple[object, ...]:
        """Which calls fit beside it: those of equal shapes, and of the same arrays where all items have one in common."""
        return tuple(
            (name, id(array)) if name in self.shared else (name, array.dtype.str, array.shape[1:])
            for name, array in sorted(self.inputs.items())
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> bool:
        self.error = error
        return isinstance(error, Exception)


class _Stack(NamedTuple):
    """What was stacked last, and of what."""

    own: list[np.ndarray]
    whole: np.ndarray


@dataclass
class _Door:
    """One part's network, and the calls that wait for it; `shared` are inputs that all items of a call have in common.

    `free` is since when the network is not `busy`.
    """

    part: str
    network: Network
    signature: Signature
    most: int
    shared: frozenset[str]
    waiting: list[_Call] = field(default_factory=list[_Call])
    busy: bool = False
    free: float = 0.0
    stacked: dict[str, _Stack] = field(default_factory=dict[str, "_Stack"])


class Batcher:
    """The networks of one bundle, shared by the threads that draw.

    A call goes as soon as every picture that is being drawn waits at some network, or as many wait as the network takes, or the
    oldest has waited `wait` seconds for nothing but others. One picture alone never waits.

    Args:
        manifest: says what each network takes at once.
        wait: seconds.
        most: items of a call, where that is less than the networks take.
        observed: told of every call.

    """

    def __init__(self, manifest: Manifest, wait: float, most: int | None, observed: Observed) -> None:
        self._manifest, self._wait, self._most, self._observed = manifest, wait, most, observed
        self._changed = threading.Condition()
        self._here = threading.local()
        self._active = self._inside = 0

    def wrap(self, part: str, _backend: str, network: Network) -> Network:
        """As `Pipeline.open` takes it: what to call instead of a network."""
        signature = self._manifest.parts[part].signature
        batch = signature.inputs[0].shape[0]
        most = signature.lengths(batch)[1]
        shared = frozenset(port.name for port in signature.inputs if port.shape[:1] != (batch,))
        return functools.partial(self._call, _Door(part, network, signature, min(most, self._most or most), shared))

    @contextmanager
    def drawing(self, jobs: Sequence[Job]) -> Generator[None]:
        """Within it this thread draws these pictures: others wait for its calls, and it stops when nobody wants any of them."""
        self._here.jobs = jobs
        with self._changed:
            self._active += 1
        try:
            yield
        finally:
            self._here.jobs = ()
            with self._changed:
                self._active -= 1
                self._changed.notify_all()

    def wake(self) -> None:
        """Have every waiting call look whether it is still wanted."""
        with self._changed:
            self._changed.notify_all()

    def _check(self) -> None:
        """Raise Cancelled where all that this thread draws was cancelled."""
        jobs: Sequence[Job] = getattr(self._here, "jobs", ())
        if jobs and all(job.cancelled for job in jobs):
            jobs[0].check()

    def _call(self, door: _Door, inputs: Arrays) -> dict[str, np.ndarray]:
        self._check()
        jobs: Sequence[Job] = getattr(self._here, "jobs", ())
        items = len(inputs[door.signature.inputs[0].name])
        call = _Call(inputs, items, door.shared, jobs[0].number if jobs else 0)
        with self._changed:
            self._inside += bool(jobs)
            door.waiting.append(call)
            self._changed.notify_all()
            try:
                batch = self._led(door, call)
            except BaseException:
                door.waiting.remove(call)
                self._inside -= bool(jobs)
                raise
        if batch:
            try:
                self._run(door, batch)
            finally:
                with self._changed:
                    door.busy, door.free = False, time.perf_counter()
                    # All at once: whose thread has not woken yet is no longer at a network either, and may be waited for.
                    self._inside -= sum(each.number > 0 for each in batch)
                    self._changed.notify_all()
        for job in jobs:
            job.spend(door.part, time.perf_counter() - call.since)
        if call.error:
            raise call.error
        return call.outputs or {}

    def _led(self, door: _Door, call: _Call) -> list[_Call]:
        """Wait until another thread has run the call, or until this one is to run it; then with these."""
        while call.outputs is None and call.error is None:
            if call in door.waiting:
                self._check()
            left = None
            if not door.busy and door.waiting and door.waiting[0] is call:
                batch = self._batch(door)
                # From when it could have gone: whoever was in the call before this one needs that long to come back.
                left = max(call.since, door.free) + self._wait - time.perf_counter()
                # One more that fits might still come from a picture that is at no network now.
                if self._inside >= self._active or left <= 0 or sum(each.items for each in batch) >= door.most:
                    door.waiting = [each for each in door.waiting if each not in batch]
                    door.busy = True
                    return batch
            self._changed.wait(left)
        return []

    def _batch(self, door: _Door) -> list[_Call]:
        """The oldest call, and those behind it that fit beside it; in an order that stays while pictures share batches."""
        first, *rest = door.waiting
        batch, items = [first], first.items
        for call in rest:
            if call.shape == first.shape and items + call.items <= door.most:
                batch.append(call)
                items += call.items
        return sorted(batch, key=lambda call: call.number)

    def _run(self, door: _Door, batch: Sequence[_Call]) -> None:
        """Run calls as one, or one after the other where that fails, so that a fault is its own picture's alone."""
        if len(batch) == 1:
            with batch[0] as call:
                call.outputs = self._timed(door, call.inputs)
            return
        with _Call(self._stacked(door, batch), sum(call.items for call in batch), door.shared, 0) as whole:
            whole.outputs = self._timed(door, whole.inputs)
        if whole.outputs is None:
            for call in batch:
                self._run(door, [call])
            return
        begin = 0
        for call in batch:
            end = begin + call.items
            # Copies, so that nobody keeps the whole, and what one writes to is no other's.
            call.outputs = {name: array[begin:end].copy() for name, array in whole.outputs.items()}
            begin = end

    def _timed(self, door: _Door, inputs: Arrays) -> dict[str, np.ndarray]:
        start = time.perf_counter()
        outputs = sessions.run([door.network], door.signature, inputs)
        items = len(inputs[door.signature.inputs[0].name])
        self._observed(door.part, items, time.perf_counter() - start)
        return outputs

    def _stacked(self, door: _Door, batch: Sequence[_Call]) -> Arrays:
        """Inputs of all calls; what nobody writes to is the same array again while the same pictures share the batch."""
        if len(batch) == 1:
            return batch[0].inputs
        stacked: dict[str, np.ndarray] = {}
        for name in batch[0].inputs:
            if name in door.shared:
                stacked[name] = batch[0].inputs[name]
                continue
            own = [call.inputs[name] for call in batch]
            fixed = not any(array.flags.writeable for array in own)
            before = door.stacked.pop(name, None)
            if not fixed or before is None or list(map(id, before.own)) != list(map(id, own)):
                before = _Stack(own, np.concatenate(own))
            if fixed:
                before.whole.flags.writeable = False
                door.stacked[name] = before
            stacked[name] = before.whole
        return stacked

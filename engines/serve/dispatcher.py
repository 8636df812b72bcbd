"""Who is drawn when: a bounded queue over several bundles, of which as many are open as fit into memory."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future

from engines.errors import UnsupportedError
from engines.samplers import Cancelled
from engines.serve import refusals
from engines.serve.jobs import Job
from engines.serve.options import ServeOptions
from engines.serve.served import ServedBundle

_LOG = logging.getLogger(__name__)
#: Share of the newest in the running mean of a picture's seconds.
_NEWEST = 0.2


class Dispatcher:
    """Takes jobs, and has each drawn: the oldest first, as soon as its bundle is open and has a free place.

    What is taken is ended, with a picture or with an error. A job of a bundle for which there is no room stops younger ones, so
    that bundles that are busy cannot keep it waiting for ever.

    Attributes:
        bundles: by name.
        waiting: jobs that are not yet drawn.
        drawing: jobs that are being drawn, the oldest first.

    """

    def __init__(
        self, bundles: Mapping[str, ServedBundle], options: ServeOptions, ended: Callable[[Job], None] = lambda _: None
    ) -> None:
        self.bundles, self.waiting, self.drawing, self.stopped = bundles, list[Job](), list[Job](), False
        self._options, self._ended = options, ended
        self._budget = None if options.memory is None else options.memory * 1e9
        self._changed = threading.Condition()
        self._seconds = 1.0
        for served in bundles.values():
            if self._budget is not None and served.cost > self._budget:
                raise UnsupportedError(
                    f"{served.path} takes {served.cost / 1e9:.3g} GB of engines, and memory={options.memory:g}. Allow more."
                )

    def open_first(self) -> None:
        """Open bundles, in the order given, as far as they fit; raise what opening one raises."""
        for served in self.bundles.values():
            if self._free() >= served.cost:
                served.open()
                served.state = "open"

    def submit(self, jobs: Sequence[Job]) -> None:
        """Take jobs, all or none.

        Raises:
            Refusal: too many wait, or the server is stopping.

        """
        with self._changed:
            if self.stopped:
                raise refusals.stopping()
            if len(self.waiting) + len(jobs) > self._options.queue:
                width = max(served.batch for served in self.bundles.values())
                raise refusals.too_many(len(self.waiting), self._seconds * len(self.waiting) / width)
            for job in jobs:
                job.on_cancel = functools.partial(self._cancelled, job)
            self.waiting.extend(jobs)
            self._advance()

    def idle(self, served: ServedBundle) -> bool:
        """Whether a job of this bundle would be drawn at once."""
        return served.state == "open" and served.running < served.slots and not self.waiting

    def refuse(self) -> None:
        """Take no more; what was taken goes on."""
        self.stopped = True

    def stop(self, seconds: float) -> bool:
        """Take no more, and finish what was taken within so many seconds; then end the rest. Return whether all was finished."""
        until = time.monotonic() + seconds
        with self._changed:
            self.stopped = True
            done = self._changed.wait_for(lambda: not self.waiting and not self.drawing, max(0.0, until - time.monotonic()))
            left, running = list(self.waiting), list(self.drawing)
            self.waiting.clear()
        for job in left:
            self._end(job, refusals.stopping())
        for job in running:
            job.cancel()
        return done

    def shown(self, job: Job) -> bytes:
        """The picture as a job's last step sees it, as a file; empty where there is none, or the job has ended."""
        served = self.bundles[job.request.model]
        with self._changed:
            latent = job.latest if job in self.drawing else None
            if latent is None:
                return b""
            served.running += 1  # so that nobody closes the bundle meanwhile
        try:
            return served.shown(latent, job.request)
        finally:
            with self._changed:
                served.running -= 1
                self._advance()

    def close(self) -> None:
        """End everything that runs, and close the bundles."""
        for served in self.bundles.values():
            served.threads.shutdown(wait=True)
            if served.state == "open":
                served.state = "closed"
                served.close()

    def _cancelled(self, job: Job) -> None:
        with self._changed:
            waited = job in self.waiting
            if waited:
                self.waiting.remove(job)
                self._changed.notify_all()
        if waited:
            self._end(job, Cancelled())
        self.bundles[job.request.model].batcher.wake()

    def _advance(self) -> None:
        """Start what can start; the lock is held."""
        passed = set[str]()
        for job in list(self.waiting):
            served = self.bundles[job.request.model]
            if served.name in passed or job not in self.waiting:
                continue
            if served.state == "open" and served.running < served.slots:
                self._start(served, job)
                continue
            passed.add(served.name)
            if served.state == "closed" and not self._make_room(served):
                return
        self._changed.notify_all()

    def _start(self, served: ServedBundle, job: Job) -> None:
        self.waiting.remove(job)
        self._begin(served, [job])
        future = served.threads.submit(self._draw, served, group := [job])
        future.add_done_callback(functools.partial(self._drawn, served, group))

    def _draw(self, served: ServedBundle, group: list[Job]) -> None:
        """Draw the job of the group, in a thread of the bundle's, and with fixed batching those that fit beside it."""
        if not served.continuous:
            self._gather(served, group)
        for job in group:
            job.check()
            job.start()
        served.draw(group)

    def _gather(self, served: ServedBundle, group: list[Job]) -> None:
        """Add waiting jobs of the same company, up to the batch; wait a little for some to come."""
        (first,) = group
        until = first.times["created"] + self._options.wait_ms / 1000
        with self._changed:
            while True:
                fitting = [job for job in self.waiting if job.request.model == served.name]
                fitting = [job for job in fitting if job.request.company == first.request.company][: served.batch - 1]
                left = until - time.perf_counter()
                if len(fitting) == served.batch - 1 or left <= 0 or self.stopped:
                    break
                self._changed.wait(left)
            group.extend(fitting)
            self.waiting = [job for job in self.waiting if job not in fitting]
            self.drawing.extend(fitting)

    def _drawn(self, served: ServedBundle, group: list[Job], future: Future[None]) -> None:
        """What a bundle's thread has drawn, or why not; of several that fail each is tried alone."""
        error = future.exception()
        alone = [job for job in group if not job.cancelled] if error and len(group) > 1 else []
        for job in group:
            if job not in alone:
                self._end(job, error)
        with self._changed:
            served.running -= 1
            served.used = time.monotonic()
            self.drawing = [job for job in self.drawing if job not in group]
            for job in alone:
                self._begin(served, [job])
                again = served.threads.submit(served.draw, [job])
                again.add_done_callback(functools.partial(self._drawn, served, [job]))
            self._advance()

    def _begin(self, served: ServedBundle, jobs: Sequence[Job]) -> None:
        served.running += 1
        served.used = time.monotonic()
        self.drawing.extend(jobs)

    def _end(self, job: Job, error: BaseException | None) -> None:
        job.end(error)
        if job.state == "done":
            taken = job.times["ended"] - job.times["started"]
            self._seconds += _NEWEST * (taken - self._seconds)
        self._ended(job)

    def _free(self) -> float:
        """Bytes that may still be opened."""
        if self._budget is None:
            return float("inf")
        return self._budget - sum(served.cost for served in self.bundles.values() if served.state != "closed")

    def _make_room(self, served: ServedBundle) -> bool:
        """Begin to open a bundle, and to close idle ones for it, the least lately used first; False where none is idle."""
        idle = sorted((one for one in self.bundles.values() if one.state == "open" and not one.running), key=lambda one: one.used)
        closing, free = list[ServedBundle](), self._free()
        while free < served.cost and idle:
            closing.append(idle.pop(0))
            free += closing[-1].cost
        if free < served.cost:
            return False
        served.state = "opening"
        for one in closing:
            one.state = "closing"
        served.threads.submit(self._open, served, closing).add_done_callback(functools.partial(self._opened, served, closing))
        return True

    def _open(self, served: ServedBundle, closing: Sequence[ServedBundle]) -> None:
        for one in closing:
            one.close()
            _LOG.info("closed %s", one.name, extra={"event": "closed", "model": one.name})
        served.open()
        _LOG.info("opened %s", served.name, extra={"event": "opened", "model": served.name})

    def _opened(self, served: ServedBundle, closing: Sequence[ServedBundle], future: Future[None]) -> None:
        """The bundle is open; or it is not, and what waits for it is told why, and it alone."""
        error = future.exception()
        with self._changed:
            for one in closing:
                one.state = "closed"
            served.state = "closed" if error else "open"
            served.used = time.monotonic()
            failed = [job for job in self.waiting if error and job.request.model == served.name]
            self.waiting = [job for job in self.waiting if job not in failed]
            self._advance()
        for job in failed:
            self._end(job, error)

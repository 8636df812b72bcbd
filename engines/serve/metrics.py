"""Figures of a server for Prometheus, by its own library."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from engines.serve.jobs import Job

if TYPE_CHECKING:
    from engines.serve.dispatcher import Dispatcher

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_ITEMS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)


class Metrics:
    """Counts what happens; each server has figures of its own."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self._stage = Histogram(
            "t2iexport_stage_seconds", "Seconds of a picture by stage", ["model", "stage"], buckets=_SECONDS, registry=registry
        )
        self._picture = Histogram(
            "t2iexport_picture_seconds", "Seconds from request to file", ["model"], buckets=_SECONDS, registry=registry
        )
        self._ended = Counter("t2iexport_pictures", "Pictures by how they ended", ["model", "result"], registry=registry)
        items, calls = "t2iexport_batch_items", "t2iexport_call_seconds"
        self._items = Histogram(items, "Items of a network's call", ["model", "part"], buckets=_ITEMS, registry=registry)
        self._call = Histogram(calls, "Seconds of a network's call", ["model", "part"], buckets=_SECONDS, registry=registry)
        self._requests = Counter("t2iexport_http_requests", "Requests by path and status", ["path", "status"], registry=registry)
        self._waiting = Gauge("t2iexport_queue_pictures", "Pictures that wait", registry=registry)
        self._drawing = Gauge("t2iexport_drawing_pictures", "Pictures that are drawn", registry=registry)
        self._open = Gauge("t2iexport_model_open", "Whether a bundle's engines are open", ["model"], registry=registry)

    def observed(self, model: str) -> Callable[[str, int, float], None]:
        """What a bundle's batcher tells of each call."""

        @functools.cache
        def of(part: str) -> tuple[Histogram, Histogram]:
            return self._items.labels(model, part), self._call.labels(model, part)

        def observe(part: str, items: int, seconds: float) -> None:
            counted, timed = of(part)
            counted.observe(items)
            timed.observe(seconds)

        return observe

    def ended(self, job: Job) -> None:
        """Count a job that has ended."""
        model = job.request.model
        if job.state == "failed" and not job.spent:  # no network ran: it was asked for what cannot be had
            self._ended.labels(model, "refused").inc()
            return
        if job.left is None:  # else another bundle ends the picture
            self._ended.labels(model, job.state).inc()
        self._stage.labels(model, "queue").observe(job.times["started"] - job.times["created"])
        for part, seconds in job.spent.items():
            self._stage.labels(model, part).observe(seconds)
        if job.state == "done" and job.left is None:
            self._picture.labels(model).observe(job.times["ended"] - job.times["created"])

    def answered(self, path: str, status: int) -> None:
        """Count a request; `path` is that of the route, so that nobody can make new ones."""
        self._requests.labels(path, str(status)).inc()

    def watch(self, dispatcher: Dispatcher) -> None:
        """Read what a queue holds whenever figures are asked for."""
        self._waiting.set_function(lambda: len(dispatcher.waiting))
        self._drawing.set_function(lambda: len(dispatcher.drawing))
        for name, served in dispatcher.bundles.items():
            self._open.labels(name).set_function(lambda served=served: float(served.state == "open"))

    def text(self) -> tuple[bytes, str]:
        """All figures, and their content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

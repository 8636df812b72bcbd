"""Traces of OpenTelemetry, by its own library: a span for each request, and in it what each picture waited and worked for."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engines.errors import MissingDependency
from engines.serve.jobs import Job

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

#: Where OpenTelemetry's own settings say that traces are wanted; without one of them nothing is loaded.
_WANTED = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def wanted() -> bool:
    """Whether the environment names a collector."""
    return any(os.environ.get(name) for name in _WANTED)


class Traces:
    """Sends a span for each request that was answered, with what the header `traceparent` says as its parent.

    Args:
        exporter: where spans go; by default OTLP over HTTP, set up by OpenTelemetry's environment variables.

    Raises:
        MissingDependency: the library is not installed.

    """

    def __init__(self, exporter: SpanExporter | None = None) -> None:
        try:
            from opentelemetry import propagate, trace  # noqa: PLC0415 - optional
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
            from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
            from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
            from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise MissingDependency("opentelemetry", "otel") from error
        self._propagate, self._trace = propagate, trace
        named = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", "t2iexport")})
        self._provider = TracerProvider(resource=named)
        self._provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("t2iexport")
        self._offset = time.time_ns() - time.perf_counter_ns()

    def answered(
        self, headers: Mapping[str, str], route: str, told: Mapping[str, Any], start: float, jobs: Sequence[Job]
    ) -> None:
        """Send the spans of a request; `start` is of `time.perf_counter`, `told` what the log says of it."""
        attributes = {"http.request.method": told["method"], "http.route": route, "http.response.status_code": told["status"]}
        attributes |= {"t2iexport.request": told["request"]}
        above = self._propagate.extract(dict(headers))
        kind = self._trace.SpanKind.SERVER
        span = self._tracer.start_span(
            f"{told['method']} {route}", above, kind, attributes=attributes, start_time=self._at(start)
        )
        if told["status"] >= 500:
            span.set_status(self._trace.StatusCode.ERROR)
        within = self._trace.set_span_in_context(span)
        for job in jobs:
            self._picture(within, job)
        span.end(self._at(time.perf_counter()))

    def close(self) -> None:
        """Send what was not sent yet."""
        self._provider.shutdown()

    def _picture(self, above: Any, job: Job) -> None:  # noqa: ANN401 - the library's context
        ended = job.times.get("ended", time.perf_counter())
        started = min(job.times.get("started", ended), ended)
        asked = job.request.arguments
        attributes: dict[str, Any] = {"t2iexport.model": job.request.model, "t2iexport.seed": str(job.seed)}
        attributes |= {f"t2iexport.{name}": asked[name] for name in ("steps", "width", "height") if asked.get(name)}
        attributes |= {"t2iexport.result": job.state}
        attributes |= {f"t2iexport.seconds.{part}": seconds for part, seconds in job.spent.items()}
        created = job.times["created"]
        span = self._tracer.start_span("picture", above, attributes=attributes, start_time=self._at(created))
        if job.state == "failed":
            span.set_status(self._trace.StatusCode.ERROR, str(job.error))
        within = self._trace.set_span_in_context(span)
        for name, begin, end in (("queue", created, started), ("draw", started, ended)):
            self._tracer.start_span(name, within, start_time=self._at(begin)).end(self._at(end))
        span.end(self._at(ended))

    def _at(self, seconds: float) -> int:
        """Of `time.perf_counter`, as nanoseconds since 1970."""
        return round(seconds * 1e9) + self._offset

import subprocess
import sys

import pytest

from engines.serve.jobs import ImageRequest, Job
from engines.serve.options import ServeOptions

pytest.importorskip("starlette", reason="the extra [serve] is not installed")
pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra [otel] is not installed")

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from engines.serve.app import Application
from engines.serve.traces import Traces, wanted
from tests.engines.serve.conftest import opened

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def told(**changes):
    return {"method": "POST", "status": 200, "request": "abc", **changes}


def spans(traces, exporter):
    traces._provider.force_flush()
    return {span.name: span for span in exporter.get_finished_spans()}


def test_a_request_is_a_span_with_its_pictures_in_it():
    exporter = InMemorySpanExporter()
    traces, job = Traces(exporter), Job(ImageRequest("demo", {"prompts": "a secret wish", "steps": 10}, (7,)))
    job.start()
    job.spend("unet", 0.5)
    job.end()
    traces.answered({"traceparent": PARENT}, "/v1/images/generations", told(), job.times["created"], [job])
    found = spans(traces, exporter)
    whole, picture = found["POST /v1/images/generations"], found["picture"]
    assert f"{whole.context.trace_id:032x}" == PARENT.split("-")[1]
    assert f"{whole.parent.span_id:016x}" == PARENT.split("-")[2]
    assert picture.parent.span_id == whole.context.span_id
    assert {found[name].parent.span_id for name in ("queue", "draw")} == {picture.context.span_id}
    assert picture.attributes["t2iexport.seconds.unet"] == 0.5
    assert picture.attributes["t2iexport.steps"] == 10
    assert found["queue"].end_time == found["draw"].start_time
    assert whole.start_time <= picture.start_time <= picture.end_time <= whole.end_time
    assert "secret" not in "".join(str(span.attributes) for span in found.values())  # what people write is theirs


def test_what_fails_is_an_error_in_the_trace():
    exporter = InMemorySpanExporter()
    traces, job = Traces(exporter), Job(ImageRequest("demo", {}, (7,)))
    job.end(ValueError("broken"))
    traces.answered({}, "/x", told(status=500), job.times["created"], [job])
    found = spans(traces, exporter)
    assert {found[name].status.is_ok for name in ("POST /x", "picture")} == {False}


def test_a_server_sends_spans_when_it_is_told_where_to(small_bundles, monkeypatch):
    exporter = InMemorySpanExporter()
    application = Application(small_bundles, ServeOptions(), opened, Traces(exporter))
    assert application._traces
    assert not wanted()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    assert wanted()


def test_requests_of_a_server_are_traced(small_bundles):
    from tests.engines.serve.live import live

    exporter = InMemorySpanExporter()
    with live(small_bundles, ServeOptions(), opened, Traces(exporter)) as running:
        running.post("/v1/images/generations", {"prompt": "sea", "n": 2}, traceparent=PARENT)
        running.get("/nothing")
    names = [span.name for span in exporter.get_finished_spans()]
    assert sorted(names) == sorted(["POST /v1/images/generations", "GET other", *["picture", "queue", "draw"] * 2])


def test_without_the_library_it_says_what_to_install():
    code = "import sys; sys.modules['opentelemetry'] = None; from engines.serve.traces import Traces; Traces()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 't2iexport[otel]'" in done.stderr

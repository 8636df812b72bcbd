"""Clients that go away, deadlines, and what is drawn for nobody."""

import contextlib
import json
import threading
import time

import pytest

pytest.importorskip("starlette", reason="the extra [serve] is not installed")

AT = "/v1/images/generations"


class Gate:
    """A denoiser that answers when it may."""

    def __init__(self):
        self.reached, self.go = threading.Event(), threading.Event()

    def __call__(self, part):
        if part == "unet":
            self.reached.set()
            self.go.wait(20)


def asking(live, body):
    """A socket on which a request was sent."""
    raw, data = live.socket(), json.dumps(body).encode()
    head = f"POST {AT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    raw.sendall(head.encode() + data)
    return raw


def pictures(live, result):
    text = live.get("/metrics")[2].decode()
    lines = [line for line in text.splitlines() if line.startswith("t2iexport_pictures_total") and f'result="{result}"' in line]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


@pytest.mark.parametrize("stream", [False, True])
def test_what_a_client_asked_for_that_went_away_is_given_up(server, stream):
    gate = Gate()
    live = server(slow=gate)
    raw = asking(live, {"prompt": "sea", "n": 4, "stream": stream, "partial_images": 1})
    assert gate.reached.wait(10)
    raw.close()
    until = time.monotonic() + 10
    while live.application.dispatcher.waiting and time.monotonic() < until:
        time.sleep(0.01)
    assert not live.application.dispatcher.waiting
    gate.go.set()
    assert live.quiet()
    assert (pictures(live, "done"), pictures(live, "cancelled")) == (0, 4)
    assert live.post(AT, {"prompt": "sea"})[0] == 200


def test_two_hundred_clients_vanish_and_one_is_served(server):
    live = server(queue=64, slow=lambda _: time.sleep(0.001))
    for index in range(200):
        raw = asking(live, {"prompt": "sea", "n": 1 + index % 3, "stream": bool(index % 2), "partial_images": 1})
        if index % 5 == 0:
            raw.settimeout(0.01)
            with contextlib.suppress(TimeoutError):
                raw.recv(10)
        raw.close()
    assert live.quiet(30)
    assert live.post(AT, {"prompt": "sea"})[0] == 200
    assert pictures(live, "failed") == 0


@pytest.mark.parametrize("how", ["server", "client"])
def test_what_takes_too_long_is_given_up(server, how):
    gate = Gate()
    live = server(slow=gate, deadline=0.3 if how == "server" else 60)
    start = time.perf_counter()
    headers = {} if how == "server" else {"prefer": "respond-async, wait=1"}
    status, _, told = live.post(AT, {"prompt": "sea"}, **headers)
    assert (status, told["error"]["code"]) == (504, "deadline_exceeded")
    assert time.perf_counter() - start < 5
    gate.go.set()
    assert live.quiet()
    assert pictures(live, "cancelled") == 1


def test_an_error_in_the_middle_of_a_stream_is_an_event(server):
    calls = []

    def breaks(part):
        calls.append(part)
        if calls.count("unet") == 2:
            raise KeyError("a bug")

    live = server(slow=breaks)
    from PIL import Image

    from tests.engines.serve.live import file_of

    fields = {"model": "editor", "prompt": "sea", "stream": "true", "partial_images": "2", "strength": "1"}
    status, headers, data = live.form("/v1/images/edits", fields, {"image": file_of(Image.new("RGB", (32, 32)))})
    assert (status, headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
    first, last = data.decode().strip().split("\n\n")
    assert first.startswith("event: image_edit.partial_image\n")
    assert last.startswith("event: error\n")
    told = json.loads(last.partition("data: ")[2])
    assert (told["type"], told["error"]["code"]) == ("error", "internal_error")


def test_an_error_before_the_first_event_is_a_status(server):
    live = server()
    assert live.post(AT, {"prompt": "sea", "stream": True, "num_inference_steps": 3})[0] == 400


def test_a_reader_that_is_slow_is_hung_up_on_and_holds_nobody_up(server):
    live = server(read_seconds=1.0)
    raw = asking(live, {"prompt": "sea", "size": "64x64", "n": 8, "stream": True, "partial_images": 1})
    assert live.post(AT, {"prompt": "sea"})[0] == 200
    assert live.quiet()
    raw.close()


def test_malformed_bodies_are_all_answered(server):
    live = server()
    bodies = [b"", b"{", b"null", b'"x"', b"[1]", b'{"prompt": 1}', b'{"n": "x"}', b"\x00\xff", b'{"size": "1x1"}', b'{"a": {}}']
    statuses = [live.post(AT, bodies[index % 10], content_type="application/json")[0] for index in range(200)]
    assert set(statuses) == {200, 400}  # an empty body is a prompt of nothing
    assert live.get("/healthz")[0] == 200

"""What every request passes: keys, origins, limits of size and time; and an answer in JSON to whatever comes."""

import base64
import threading
import time

import pytest

pytest.importorskip("starlette", reason="the extra [serve] is not installed")

AT = "/v1/images/generations"


def test_a_key_is_asked_for_where_there_are_any(server):
    live = server(keys=("one", "two"))
    basic = "Basic " + base64.b64encode(b"anybody:two").decode()
    wrong = ["", "Bearer", "Bearer three", "Bearer on", "Basic x", "Basic " + base64.b64encode(b"two").decode(), "one"]
    for header, status in [*((each, 401) for each in wrong), ("Bearer one", 200), ("bearer two", 200), (basic, 200)]:
        found, headers, told = live.get("/v1/models", authorization=header)
        assert found == status, header
        if status == 401:
            assert headers["www-authenticate"] == "Bearer"
            assert told["error"]["code"] == "invalid_api_key"
    assert live.get("/sdapi/v1/options")[2]["error"] == "invalid_api_key"
    assert live.get("/metrics")[0] == 401
    assert live.get("/healthz")[0] == live.get("/readyz")[0] == 200
    assert server().get("/v1/models")[0] == 200


def test_pages_of_other_origins_may_not_call(server):
    live = server()
    evil = "http://evil.example"
    status, headers, told = live.post(AT, {"prompt": "sea"}, origin=evil)
    assert (status, told["error"]["code"]) == (403, "origin_not_allowed")
    assert "access-control-allow-origin" not in headers
    assert live.call("OPTIONS", AT, origin=evil, access_control_request_method="POST")[0] == 403
    assert live.post(AT, {"prompt": "sea"}, origin=live.url)[0] == 200
    friend = server(cors=(evil,))
    status, headers, _ = friend.post(AT, {"prompt": "sea"}, origin=evil)
    assert (status, headers["access-control-allow-origin"]) == (200, evil)
    asked = {"origin": evil, "access_control_request_method": "POST", "access_control_request_headers": "authorization"}
    assert friend.call("OPTIONS", AT, **asked)[0] == 200


def test_a_body_that_is_too_large_is_refused_whether_it_says_so_or_not(server):
    live = server(max_body=2000)
    status, _, told = live.post(AT, {"prompt": "x" * 3000})
    assert (status, told["error"]["code"]) == (413, "too_large")
    with live.socket() as raw:
        raw.sendall(
            f"POST {AT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        for _ in range(3):
            raw.sendall(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 413")
    assert live.get("/healthz")[0] == 200


def test_a_request_that_does_not_arrive_is_answered(server):
    live = server(read_seconds=0.3)
    with live.socket() as raw:
        raw.sendall(f"POST {AT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{".encode())
        answer = b"".join(iter(lambda: raw.recv(2000), b""))
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"did not arrive within 0.3 s" in answer


def test_paths_that_are_none_are_json_of_the_dialect(server):
    live = server()
    for path, method, status in (("/v1/nothing", "GET", 404), (AT, "GET", 405), ("/%2e%2e/etc/passwd", "GET", 404)):
        found, _, told = live.call(method, path)
        assert (found, set(told["error"])) == (status, {"message", "type", "param", "code"})
    found, _, told = live.get("/sdapi/v1/nothing")
    assert (found, set(told)) == (404, {"error", "detail", "body", "errors"})


def test_every_answer_has_a_number_and_may_not_be_taken_for_another_type(server):
    live = server()
    _, one, _ = live.get("/healthz")
    _, two, _ = live.get("/nothing")
    assert one["x-request-id"] != two["x-request-id"]
    assert one["x-content-type-options"] == "nosniff"


def test_a_bug_is_an_answer_and_stands_in_the_log(server, caplog):
    def broken(part):
        if part == "unet":
            raise KeyError("a bug")

    live = server(slow=broken)
    with caplog.at_level("INFO"):
        status, headers, told = live.post(AT, {"prompt": "sea"})
    assert (status, told["error"]["code"]) == (500, "internal_error")
    assert headers["x-request-id"] in told["error"]["message"]
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.request == headers["x-request-id"]
    assert record.exc_info[0] is KeyError
    assert live.get("/healthz")[0] == 200


def test_a_queue_that_is_full_says_when_to_come_again(server):
    go, reached = threading.Event(), threading.Event()

    def slow(part):
        if part == "unet":
            reached.set()
            go.wait(20)

    live = server(slow=slow, queue=1, batch=1)
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(live.post(AT, {"prompt": "sea"}))) for _ in range(2)]
    threads[0].start()
    assert reached.wait(10)
    threads[1].start()
    until = time.monotonic() + 10
    while not live.application.dispatcher.waiting and time.monotonic() < until:
        time.sleep(0.01)
    status, headers, told = live.post(AT, {"prompt": "sea"})
    assert (status, told["error"]["type"]) == (429, "rate_limit_error")
    assert int(headers["retry-after"]) >= 1
    assert live.get("/readyz")[0] == 503
    go.set()
    for thread in threads:
        thread.join(20)
    assert [status for status, _, _ in answers] == [200, 200]


def test_metrics_count_what_happened(server):
    live = server()
    live.post(AT, {"prompt": "sea", "n": 2})
    live.post(AT, {"prompt": "sea", "num_inference_steps": 3})
    live.get("/a/path/that/is/none")
    # A picture is counted by its own thread, which may come after its answer.
    text, until = "", time.monotonic() + 10
    while 't2iexport_pictures_total{model="small",result="done"} 2.0' not in text:
        assert time.monotonic() < until, text
        text = live.get("/metrics")[2].decode()
    assert f't2iexport_http_requests_total{{path="{AT}",status="200"}} 1.0' in text
    assert f't2iexport_http_requests_total{{path="{AT}",status="400"}} 1.0' in text
    assert 't2iexport_http_requests_total{path="other",status="404"} 1.0' in text
    for stage in ("queue", "text_encoder", "unet", "vae_decoder", "encode"):
        assert f't2iexport_stage_seconds_count{{model="small",stage="{stage}"}} 2.0' in text
    assert 't2iexport_model_open{model="small"} 1.0' in text
    assert 't2iexport_batch_items_sum{model="small",part="unet"} 4.0' in text  # two steps of two pictures

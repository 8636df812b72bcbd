import http.client
import socket
import time

import pytest

from engines.errors import MachineError

pytest.importorskip("uvicorn", reason="the extra [serve] is not installed")

from engines.serve import running


def test_a_port_that_is_taken_is_told_in_a_sentence():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(MachineError, match=f"cannot listen on 127.0.0.1 port {port}: .* Name another"):
            running._listen("127.0.0.1", port)


def test_any_port_is_one_that_is_free():
    with running._listen("127.0.0.1", 0) as found:
        assert found.getsockname()[1] > 0


def test_an_answers_packets_do_not_wait_for_receipts(server):
    """Without TCP_NODELAY each takes 40 ms and more: the kernel holds the body back until the headers are confirmed."""
    live, taken = server(), []
    connection = http.client.HTTPConnection("127.0.0.1", live.port)
    for _ in range(30):
        start = time.perf_counter()
        connection.request("GET", "/v1/models")
        connection.getresponse().read()
        taken.append(time.perf_counter() - start)
    connection.close()
    assert min(taken) < 0.035

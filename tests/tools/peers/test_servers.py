"""Races of servers: who answers, in turns, and what a peer that cannot says."""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import click
import pytest

from tools.peers import servers


class Drawing(BaseHTTPRequestHandler):
    """Answers every request for a picture alike."""

    status, asked = 200, []
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        body = json.dumps({"data": [{"b64_json": "AAAA"}]}).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def drawing():
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Drawing,), {"asked": []})) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def served(server):
    return servers.Server(SimpleNamespace(pid=0), server.server_address[1])


def test_both_are_asked_in_every_round(drawing):
    told = servers.race({"one": served(drawing), "other": served(drawing)}, 4, clients=2, seconds=0.05, rounds=3)
    assert set(told) == {"one", "other"}
    assert all(figures["per_second"] > 0 and figures["failed"] == 0 for figures in told.values())
    assert {asked["num_inference_steps"] for asked in drawing.RequestHandlerClass.asked} == {4}


def test_a_server_that_fails_ends_the_race(drawing):
    drawing.RequestHandlerClass.status = 500
    with pytest.raises(click.ClickException, match=r"one: \d+ of \d+ requests failed"):
        servers.race({"one": served(drawing)}, 4, clients=1, seconds=0.05, rounds=1)


def test_a_peer_that_ends_is_told_with_its_last_words(tmp_path):
    command = [sys.executable, "-c", "print('no such weights'); raise SystemExit(3)"]
    with (
        pytest.raises(click.ClickException, match="no such weights"),
        servers.peer(command, servers.free_port(), tmp_path / "log"),
    ):
        pass


def test_a_peer_is_stopped_at_the_end(tmp_path):
    port = servers.free_port()
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    with servers.peer(command, port, tmp_path / "log") as server:
        assert server.get("/")[0] == 200
    assert server.process.wait(10) is not None

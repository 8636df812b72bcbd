"""A server as users start it, in a process of its own, and what is asked of it."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import click
import psutil

AT = "/v1/images/generations"
PROMPT = "a small red circle left of a large blue square"


class Server:
    """A server that runs, and what is asked of it."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port

    @contextlib.contextmanager
    def connect(self) -> Iterator[http.client.HTTPConnection]:
        """A connection that stays open until the end of the `with`."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)) as connection:
            yield connection

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body."""
        with self.connect() as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def total(self, name: str, *labels: str) -> float:
        """Sum of a figure of Prometheus over what carries all of these labels."""
        lines = [line for line in self.get("/metrics")[1].decode().splitlines() if line.startswith(name)]
        return sum(float(line.rpartition(" ")[2]) for line in lines if all(label in line for label in labels))

    def rss(self) -> float:
        """MB in memory."""
        return psutil.Process(self.process.pid).memory_info().rss / 1e6


@contextlib.contextmanager
def serving(bundle: Path, *settings: str) -> Iterator[Server]:
    """Start the command, and stop it at the end."""
    words = [sys.executable, "-m", "engines", "serve", f"it={bundle}", "--port", "0"]
    words += [word for setting in settings for word in ("--set", setting)]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    port, ready = 0, False
    for line in process.stderr or ():
        told = json.loads(line) if line.startswith("{") else {"message": line}
        port = int(told["url"].rpartition(":")[2]) if told.get("event") == "serving" else port
        if ready := "startup complete" in told["message"]:
            break
    if not ready:
        raise click.ClickException(f"the server did not start: {' '.join(words)}")
    drained = threading.Thread(target=lambda: [None for _ in process.stderr or ()], daemon=True)
    drained.start()
    try:
        yield Server(process, port)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(300)
        drained.join()
        if process.stderr:
            process.stderr.close()


def ask(connection: http.client.HTTPConnection, seed: int, steps: int, **more: object) -> tuple[int, bytes]:
    """Draw one picture; status, and its file or the error."""
    body = json.dumps({"prompt": PROMPT, "seed": seed, "num_inference_steps": steps, **more})
    connection.request("POST", AT, body, {"content-type": "application/json"})
    answer = connection.getresponse()
    data = answer.read()
    return answer.status, base64.b64decode(json.loads(data)["data"][0]["b64_json"]) if answer.status == 200 else data

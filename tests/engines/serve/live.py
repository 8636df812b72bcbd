"""A server on a socket, in a thread of the test's process, and the plainest of clients."""

import base64
import contextlib
import http.client
import io
import json
import socket
import threading
import time

import uvicorn
from PIL import Image

from engines.serve import running
from engines.serve.app import Application


class Live:
    """A server that listens; `application` is what it serves."""

    def __init__(self, application, port):
        self.application, self.port = application, port
        self.url = f"http://127.0.0.1:{port}"

    def call(self, method, path, body=None, **headers):
        """Status, headers and JSON (or bytes) of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        given = {key.replace("_", "-"): value for key, value in headers.items()}
        if body is not None and not isinstance(body, bytes):
            body, given = json.dumps(body).encode(), {"content-type": "application/json", **given}
        with contextlib.closing(connection):
            connection.request(method, path, body, given)
            answer = connection.getresponse()
            data = answer.read()
        told = {key.lower(): value for key, value in answer.getheaders()}
        return answer.status, told, json.loads(data) if "json" in told.get("content-type", "") else data

    def get(self, path, **headers):
        return self.call("GET", path, **headers)

    def post(self, path, body, **headers):
        return self.call("POST", path, body, **headers)

    def form(self, path, fields, files):
        """Send a multipart form."""
        edge, parts = "edge", []
        for name, value in fields.items():
            parts.append(f'--{edge}\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode())
        for name, data in files.items():
            head = f'--{edge}\r\ncontent-disposition: form-data; name="{name}"; filename="x.png"\r\n'
            parts.append(head.encode() + b"content-type: image/png\r\n\r\n" + data + b"\r\n")
        body = b"".join(parts) + f"--{edge}--\r\n".encode()
        return self.call("POST", path, body, content_type=f"multipart/form-data; boundary={edge}")

    def socket(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def quiet(self, seconds=10):
        """Whether nothing is drawn and nothing waits, soon."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if not self.application.dispatcher.drawing and not self.application.dispatcher.waiting:
                return True
            time.sleep(0.01)
        return False


@contextlib.contextmanager
def live(paths, options, opener, tracing=None):
    """Serve these bundles until the end of the `with`."""
    application = Application(paths, options, opener, tracing)
    application.dispatcher.open_first()
    listening = running._listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(application.asgi, log_config=None, access_log=False, timeout_graceful_shutdown=20))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        yield Live(application, listening.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(30)
        listening.close()
        assert not thread.is_alive()


def opened(text):
    """The picture in base64."""
    image = Image.open(io.BytesIO(base64.b64decode(text)))
    image.load()
    return image


def file_of(image, form="PNG"):
    data = io.BytesIO()
    image.save(data, form)
    return data.getvalue()


def text_of(image):
    return base64.b64encode(file_of(image)).decode()


def opened_bytes(data):
    image = Image.open(io.BytesIO(data))
    image.load()
    return image.convert("RGB")

"""What every request passes: a number, a key, limits of size and time, an answer to every error, and a line in the log."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import re
import secrets
import time
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engines.serve import a1111_api, logs, openai_api
from engines.serve.jobs import Job
from engines.serve.metrics import Metrics
from engines.serve.options import ServeOptions
from engines.serve.refusals import Refusal, refusal_of
from engines.serve.traces import Traces

#: Asked by who has no key: a machine's own checks, the page, and pictures by names that nobody guesses.
_OPEN = re.compile(r"/(healthz|readyz|page/[\w.-]+|v1/images/files/[\w.-]+)?")
#: What nginx writes for a client that went away.
_GONE = 499
#: What a router says in other words.
_STATUSES = {
    404: ("there is nothing here. The page is at /, the APIs are under /v1 and /sdapi/v1.", "not_found"),
    405: ("this path takes another method.", "method_not_allowed"),
}
_HEADERS = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}


class Front:
    """The outermost layer of the server."""

    def __init__(self, app: ASGIApp, options: ServeOptions, metrics: Metrics, traces: Traces | None = None) -> None:
        self._app, self._options, self._metrics, self._traces = app, options, metrics, traces
        self._keys = [key.encode() for key in options.keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; of ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        passed = _Passage(self._options, receive, send)
        # With an app in its scope Starlette's router raises what it does not find, instead of answering in plain text.
        scope["app"], scope["state"] = self, {**scope.get("state", {}), "request_id": passed.request_id}
        start = time.perf_counter()
        request = Request(scope)
        try:
            self._admit(scope)
            await self._app(scope, passed.receive, passed.send)
        except ClientDisconnect:
            passed.status = passed.status or _GONE
        except Exception as error:
            if passed.status:  # the answer has begun, and cannot become another
                raise
            await answer(request, error)(scope, passed.receive, passed.send)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.answered(route, passed.status)
            told: dict[str, Any] = {"request": passed.request_id, "method": scope["method"], "path": scope["path"]}
            told |= {"status": passed.status, "ms": round(1000 * (time.perf_counter() - start), 1)}
            told |= {"client": request.client.host if request.client else ""}
            jobs: list[Job] = getattr(request.state, "jobs", [])
            logs.answered(told | ({"model": jobs[0].request.model, "pictures": len(jobs)} if jobs else {}))
            if self._traces:
                self._traces.answered(request.headers, route, told, start, jobs)

    def _admit(self, scope: Scope) -> None:
        """Raise Refusal for a request without a key, one from another web page, or one that says that it is too large."""
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if origin and origin not in self._options.cors and urlsplit(origin).netloc != headers.get("host"):
            text = f"pages of {origin} may not call this server. It can be started with --cors {origin}."
            raise Refusal(403, text, "origin_not_allowed")
        if self._keys and not _OPEN.fullmatch(scope["path"]) and scope["method"] != "OPTIONS":
            told = _key(headers.get("authorization", ""))
            # All are compared, so that time tells nothing.
            if not sum([hmac.compare_digest(told, key) for key in self._keys]):
                text = "a key is needed: authorization: Bearer KEY, or Basic with KEY as password; it is missing or wrong."
                raise Refusal(401, text, "invalid_api_key", headers={"www-authenticate": "Bearer"})
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._options.max_body:
            raise _too_large(self._options)


def _key(header: str) -> bytes:
    """The key that a header carries: OpenAI's clients send it as Bearer, A1111's as the password of Basic."""
    scheme, _, rest = header.strip().partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip().encode()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(rest.strip(), validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return b""


class _Passage:
    """What one request receives and sends, within its limits."""

    def __init__(self, options: ServeOptions, receive: Receive, send: Send) -> None:
        self.request_id, self.status = secrets.token_hex(8), 0
        self._options, self._receive, self._send = options, receive, send
        self._bytes, self._whole = 0, False
        self._until = time.monotonic() + options.read_seconds

    async def receive(self) -> Message:
        """Of ASGI."""
        if self._whole:
            return await self._receive()
        try:
            async with asyncio.timeout(max(0.0, self._until - time.monotonic())):
                message = await self._receive()
        except TimeoutError as error:
            text = f"the request did not arrive within {self._options.read_seconds:g} s. Send it again."
            raise Refusal(408, text, "request_timeout", headers={"connection": "close"}) from error
        self._bytes += len(message.get("body", b""))
        self._whole = message["type"] != "http.request" or not message.get("more_body", False)
        if self._bytes > self._options.max_body:
            raise _too_large(self._options)
        return message

    async def send(self, message: Message) -> None:
        """Of ASGI; who does not read what it asked for is hung up on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            added = {**_HEADERS, "x-request-id": self.request_id}
            message["headers"] = [*message["headers"], *((key.encode(), value.encode()) for key, value in added.items())]
        try:
            async with asyncio.timeout(self._options.read_seconds):
                await self._send(message)
        except TimeoutError as error:
            raise ClientDisconnect from error


def _too_large(options: ServeOptions) -> Refusal:
    text = f"the request is larger than {options.max_body} bytes, which are allowed."
    return Refusal(413, text, "too_large", headers={"connection": "close"})


def answer(request: Request, error: Exception) -> Response:
    """The answer to an error, in the shape of the dialect that was spoken."""
    if isinstance(error, HTTPException):
        text, word = _STATUSES.get(error.status_code, (error.detail, "invalid_value"))
        refusal = Refusal(error.status_code, text, word, headers=error.headers)
    else:
        refusal = refusal_of(error, request.state.request_id)
    logs.failed(request, refusal, error)
    dialect = a1111_api if request.url.path.startswith("/sdapi/") else openai_api
    return JSONResponse(dialect.error(refusal), refusal.status, refusal.headers)

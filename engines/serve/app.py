"""The application: bundles, queue, routes and layers put together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from engines.serve.a1111_api import A1111Routes
from engines.serve.desk import Desk
from engines.serve.dispatcher import Dispatcher
from engines.serve.front import Front
from engines.serve.metrics import Metrics
from engines.serve.openai_api import OpenAIRoutes
from engines.serve.options import ServeOptions
from engines.serve.served import Opener, ServedBundle
from engines.serve.shelf import Shelf
from engines.serve.static import Page
from engines.serve.traces import Traces, wanted


class Application:
    """A server without its socket.

    Args:
        paths: of the bundles, by the names that clients ask for.
        options: limits, batching and the rest.
        opener: opens a bundle.
        tracing: where spans go; by default where the environment says, if it does.

    Attributes:
        asgi: what a server of ASGI runs.
        dispatcher: the queue.

    Raises:
        T2IError: a bundle is damaged, does not run here, or does not fit into memory.

    """

    def __init__(self, paths: Mapping[str, Path], options: ServeOptions, opener: Opener, tracing: Traces | None = None) -> None:
        self._options, self.metrics, self._traces = options, Metrics(), tracing or (Traces() if wanted() else None)
        bundles = {name: ServedBundle(name, path, options, opener, self.metrics.observed(name)) for name, path in paths.items()}
        self.dispatcher = Dispatcher(bundles, options, self.metrics.ended)
        self.metrics.watch(self.dispatcher)
        desk = Desk(self.dispatcher, options)
        openai = OpenAIRoutes(desk, Shelf(options.kept_mb * 1e6))
        own = [Route("/healthz", self._healthy), Route("/readyz", self._ready), Route("/metrics", self._metrics)]
        router = Router(
            [*own, *openai.routes(), *A1111Routes(desk).routes(), *Page().routes()], redirect_slashes=False, lifespan=self._life
        )
        self.asgi: ASGIApp = Front(router, options, self.metrics, self._traces)
        if options.cors:
            self.asgi = CORSMiddleware(self.asgi, options.cors, allow_methods=["GET", "POST"], allow_headers=["*"])

    @contextlib.asynccontextmanager
    async def _life(self, _app: object) -> AsyncGenerator[None]:
        """From before the first request to after the last."""
        try:
            yield
        finally:
            await asyncio.to_thread(self.dispatcher.stop, self._options.drain)
            await asyncio.to_thread(self.dispatcher.close)
            if self._traces:
                await asyncio.to_thread(self._traces.close)

    async def _healthy(self, _request: Request) -> Response:
        """Whether the process answers."""
        return JSONResponse({"status": "ok"})

    async def _ready(self, _request: Request) -> Response:
        """Whether a request would be taken, and which bundles are open."""
        states = {name: served.state for name, served in self.dispatcher.bundles.items()}
        full = len(self.dispatcher.waiting) >= self._options.queue
        told = "stopping" if self.dispatcher.stopped else "full" if full else "ready"
        return JSONResponse({"status": told, "models": states}, 200 if told == "ready" else 503)

    async def _metrics(self, _request: Request) -> Response:
        """Figures for Prometheus."""
        data, kind = self.metrics.text()
        return Response(data, headers={"content-type": kind})

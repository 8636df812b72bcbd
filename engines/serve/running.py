"""A server on a socket: uvicorn, its signals, and the lines that say where it is."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

import uvicorn

from engines.errors import MachineError
from engines.serve import logs
from engines.serve.app import Application
from engines.serve.options import ServeOptions
from engines.serve.served import Opener

_LOG = logging.getLogger(__name__)


class _Server(uvicorn.Server):
    """Stops taking work at the first signal, and finishes what it took; at the second it ends.

    Attributes:
        interrupted: whether Ctrl-C was one of them.

    """

    def __init__(self, config: uvicorn.Config, application: Application) -> None:
        super().__init__(config)
        self._application, self.interrupted = application, False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Of uvicorn, when a signal comes; its own would have the process die of the signal in the end."""
        _LOG.info("stopping", extra={"event": "stopping", "signal": sig})
        self._application.dispatcher.refuse()
        self.force_exit = self.should_exit
        self.should_exit = True
        self.interrupted = self.interrupted or sig == signal.SIGINT


def run(bundles: Mapping[str, Path], options: ServeOptions, opener: Opener, host: str, port: int) -> None:
    """Serve until a signal comes; raise what keeps it from starting."""
    logs.to_stderr()
    application = Application(bundles, options, opener)
    application.dispatcher.open_first()
    listening = _listen(host, port)
    config = uvicorn.Config(
        application.asgi,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=max(1, round(options.drain)),
        lifespan="on",
    )
    address = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
    if not options.keys and host not in {"127.0.0.1", "localhost", "::1"}:
        _LOG.warning("no API key is set, so whoever reaches %s can draw", address, extra={"event": "open"})
    _LOG.info("serving on %s", address, extra={"event": "serving", "url": address, "models": list(bundles)})
    server = _Server(config, application)
    server.run([listening])
    if server.interrupted:
        raise KeyboardInterrupt


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens; raise MachineError where none can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Of TCP by name: else asyncio leaves TCP_NODELAY out, and an answer's second packet waits 40 ms for the first one's receipt.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen()
    except OSError as error:
        made.close()
        why = error.strerror or error
        raise MachineError(f"cannot listen on {host} port {port}: {why}. Name another --host or --port.") from error
    return made

"""Processes for tasks, forked from a copy of this one that was made while it had no threads: what it has, none imports again."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar

R = TypeVar("R")
#: Libraries that compute on threads of their own, which a copy would lack.
_THREADED = ("torch", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "ray")
_ASK = b"+"


def possible() -> bool:
    """Whether this process may be copied: it has one thread, and no library that computes on more."""
    return sys.platform == "linux" and threading.active_count() == 1 and not any(name in sys.modules for name in _THREADED)


class Nursery:
    """A copy of this process, as it is now, that does nothing but fork."""

    def __init__(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # else the copies would say again what is not written yet
        self._asking, theirs = socket.socketpair()
        self._pid = os.fork()
        if not self._pid:
            self._asking.close()
            _copy(_tend, theirs)
        theirs.close()

    def process(self) -> OwnProcess:
        """Fork a process that waits for tasks."""
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._asking, [_ASK], [theirs.fileno()])
        return OwnProcess(ours)

    def close(self) -> None:
        """End, when the processes have."""
        self._asking.close()
        with suppress(ChildProcessError):  # somebody has waited for it
            os.waitpid(self._pid, 0)


class OwnProcess:
    """A process for tasks, one after the other, as an executor of one."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = Connection(channel.detach())
        self._told = False

    def submit(self, function: Callable[..., R], *arguments: object) -> Future[R]:
        """Run a task and wait for it; the future is done, and has BrokenProcessPool where the process died."""
        future: Future[R] = Future()
        try:
            if not self._told:
                self._channel.send(dict(os.environ))
                self._told = True
            self._channel.send((function, arguments))
            result, error, told = self._channel.recv()
        except (EOFError, ConnectionError):
            future.set_exception(BrokenProcessPool("the task's process died"))
            return future
        if error is None:
            future.set_result(result)
        else:
            error.__cause__ = RuntimeError(told)  # where it was
            future.set_exception(error)
        return future

    def shutdown(self, *, cancel_futures: bool = True) -> None:  # noqa: ARG002 - an executor's
        """End the process, and wait until it has."""
        if self._channel.closed:
            return
        ending = socket.socket(fileno=os.dup(self._channel.fileno()))
        with ending, suppress(OSError):  # of one that died
            ending.shutdown(socket.SHUT_WR)
        with suppress(EOFError, ConnectionError):
            while True:
                self._channel.recv_bytes()
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.shutdown()


def _copy(function: Callable[..., None], *arguments: object) -> NoReturn:
    """Be a copy, which goes on with this and ends, and never with what its original is in the midst of."""
    try:
        function(*arguments)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(0)
    finally:
        traceback.print_exc()
        os._exit(1)


def _tend(asked: socket.socket) -> None:
    """Fork whenever it is asked for, until nobody can ask any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, which is for whoever asks
    while True:
        message, handles, *_ = socket.recv_fds(asked, len(_ASK), 1)
        with suppress(ChildProcessError):  # there is none left
            while os.waitpid(-1, 0 if not message else os.WNOHANG)[0]:
                pass
        if not message:
            return
        if not os.fork():
            asked.close()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            _copy(_serve, Connection(handles[0]))
        os.close(handles[0])


def _serve(channel: Connection) -> None:
    """Do tasks until there are none."""
    with suppress(EOFError, ConnectionError):
        enter(channel.recv())
        while True:
            channel.send_bytes(_done(*channel.recv()))


def _done(function: Callable[..., Any], arguments: tuple[Any, ...]) -> bytes:
    """What a task gave, spelled: its result, or what it raised and where."""
    with _Told() as raised:
        return pickle.dumps((function(*arguments), None, ""))
    with _Told():  # whatever an error's class does when it is spelled
        return pickle.dumps((None, raised.error, raised.where))
    return pickle.dumps((None, RuntimeError(f"{type(raised.error).__name__}: {raised.error}"), raised.where))


class _Told:
    """What a task raises is for whoever asked, and ends nothing here.

    Attributes:
        error: that was raised.
        where: its traceback.

    """

    error: BaseException | None = None
    where = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        self.error = error
        self.where = "".join(traceback.format_exception(kind, error, trace))
        return True


def enter(environment: Mapping[str, str]) -> None:
    """Take over the asker's environment, which may be another than when its copy was made."""
    os.environ.clear()
    os.environ.update(environment)

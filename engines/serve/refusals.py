"""What a server answers when it does not draw: the status, the sentence, and a word that programs can test."""

from __future__ import annotations

from collections.abc import Mapping

from engines.errors import BundleError, MachineError, MissingDependency, T2IError, UnsupportedError


class Refusal(Exception):  # noqa: N818 - what is raised is the answer
    """An answer that is no picture.

    Attributes:
        status: of HTTP.
        text: a sentence for people.
        code: a word for programs.
        param: the field of the request that it is about, where it is about one.
        headers: of the answer.

    """

    def __init__(
        self, status: int, text: str, code: str, param: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(text)
        self.status, self.text, self.code, self.param, self.headers = status, text, code, param, dict(headers or {})


def invalid(text: str, param: str | None = None) -> Refusal:
    """A request that cannot be what its sender meant."""
    return Refusal(400, text, "invalid_value", param)


def too_many(waiting: int, seconds: float) -> Refusal:
    """The queue is full, and about so many seconds' work is in it."""
    after = str(max(1, round(seconds)))
    text = f"{waiting} pictures wait already, and no more may. Try again in about {after} s."
    return Refusal(429, text, "rate_limit_exceeded", headers={"retry-after": after})


def stopping() -> Refusal:
    """No new work: what was accepted is being finished."""
    text = "the server is stopping and takes no new requests. Try again soon."
    return Refusal(503, text, "stopping", headers={"retry-after": "5"})


def late(seconds: float) -> Refusal:
    """Not finished in time."""
    text = f"the picture was not finished within {seconds:g} s, and was given up. Ask for fewer or smaller ones, or later."
    return Refusal(504, text, "deadline_exceeded")


def refusal_of(error: BaseException, request: str) -> Refusal:
    """What to answer for an error: what the sender can mend, what the bundle or the machine lacks, or a bug.

    `request` is the request's id, under which the log has the traceback of a bug.
    """
    match error:
        case Refusal():
            return error
        case UnsupportedError():
            return invalid(str(error))
        case BundleError() | MissingDependency() | MachineError() | MemoryError():
            text = str(error) if isinstance(error, T2IError) else "the machine has no memory left. Ask for a smaller picture."
            return Refusal(503, text, "model_unavailable", headers={"retry-after": "30"})
        case _:
            return Refusal(500, f"a bug in t2iexport; the server's log says more, under request {request}.", "internal_error")

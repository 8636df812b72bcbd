"""Files behind a URL of fsspec: an object store, or a folder that several machines see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec

from engines.errors import MachineError, MissingDependency, UnsupportedError


def opened(url: str, example: str) -> tuple[Any, str]:
    """The file system of a URL, and the place in it.

    Args:
        url: as the user named it.
        example: a URL that would do, for messages.

    Raises:
        MissingDependency: the URL's kind needs a library that is not installed.
        UnsupportedError: there is no such kind.

    """
    kind = url.partition("://")[0]
    try:
        system, place = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise MissingDependency(kind, "", f"{url}: {error}, which fsspec needs for {kind}://.") from error
    except ValueError as error:
        told = f"{url}: nobody knows {kind}:// ({error})."
        raise UnsupportedError(f"{told} Name a folder, or a URL of fsspec such as {example}.") from error
    return system, place.rstrip("/")


@contextmanager
def saying(doing: str, remedy: str) -> Iterator[None]:
    """Whatever a store's library raises is what the machine refuses: each has errors of its own.

    Raises:
        MachineError: it refused.

    """
    try:
        yield
    except Exception as error:
        told = f"{type(error).__name__}: {error}".strip(": ")
        raise MachineError(f"{doing}: {told}\n  {remedy}") from error

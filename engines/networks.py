"""Open a bundle's engines: which backend, when, and until when."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from pydantic import ValidationError

from engines import plugins
from engines.backends import Backend
from engines.bundle import Bundle, PartEntry
from engines.errors import MissingDependency, UnsupportedError
from engines.frozen import describe

#: A network that is ready to run: an engine, or in a test any function.
Network = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]
#: `wrap(part, backend, network)`: what to call instead of a network, such as one that takes its time.
Wrap = Callable[[str, str, Network], Network]


def unwrapped(_part: str, _backend: str, network: Network) -> Network:
    """The network itself."""
    return network


@contextmanager
def opened(
    bundle: Bundle, backend: str | None, options: Mapping[str, Any], wrap: Wrap = unwrapped
) -> Generator[tuple[dict[str, Network], str]]:
    """Open every part's engine, the encoder's when it is first run, and close them at the end of the `with`.

    Args:
        bundle: whose engines.
        backend: by default onnxruntime, or else the first whose library is here.
        options: fields of the backend, instead of those that the engines were built with.
        wrap: what to call instead of each network.

    Yields:
        The networks by their part's name, and the backend with its version.

    Raises:
        BundleError, UnsupportedError, MissingDependency: as `Pipeline.open`.

    """
    parts, networks, engine = bundle.manifest.parts, dict[str, Network](), ""
    *first, last = _backends(parts, backend)
    with ExitStack() as stack:

        def opening(name: str, chosen: Backend, files: Sequence[str]) -> Network:
            return stack.enter_context(chosen.open([bundle.path(file) for file in files], parts[name].signature))

        for each in (*first, last):
            try:
                for name, part in parts.items():
                    chosen = _configure(each, {**part.engines[each].options, **options})
                    open_it = functools.partial(opening, name, chosen, part.engines[each].files)
                    # Few pictures start from another one, so the encoder waits until one does.
                    networks[name] = wrap(name, each, _late(open_it) if part.role == "encoder" else open_it())
                    engine = f"{each} {chosen.version}"
                break
            except MissingDependency:
                if each == last:
                    raise
        yield networks, engine


def _late(open_it: Callable[[], Network]) -> Network:
    """A network that is opened when it is first run."""
    once = functools.cache(open_it)

    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return once()(inputs)

    return run


def _backends(parts: Mapping[str, PartEntry], wanted: str | None) -> list[str]:
    """Name the backends to try, in order: those that every part has engines of."""
    common = sorted(set[str].intersection(*(set(part.engines) for part in parts.values())))
    common.sort(key=lambda name: name != "onnxruntime")
    if not common or (wanted and wanted not in common):
        raise UnsupportedError(
            f"this bundle has no engines of {wanted or 'one backend for all parts'}; it has {', '.join(common) or 'none'}. "
            "Build them with: t2iexport rebuild BUNDLE"
        )
    return [wanted] if wanted else common


def _configure(name: str, options: Mapping[str, Any]) -> Backend:
    try:
        return plugins.load("backends", name)(**options)
    except ValidationError as error:
        raise UnsupportedError(f"{name} does not take these options:\n{describe(error)}") from error

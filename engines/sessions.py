"""Open a bundle's engines: which backend, when, and until when."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import numpy as np
from pydantic import ValidationError

from engines import plugins
from engines.backends import Backend
from engines.bundle import Bundle, Draft
from engines.errors import MissingDependency, UnsupportedError
from engines.signature import Signature
from engines.strict import describe

#: A network that is ready to run: an engine, or in a test any function.
Network = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]
#: `wrap(part, backend, network)`: what to call instead of a network, such as one that takes its time.
Wrap = Callable[[str, str, Network], Network]


def unwrapped(_part: str, _backend: str, network: Network) -> Network:
    """The network itself."""
    return network


@contextmanager
def opened(
    bundle: Bundle, backend: str | None, options: Mapping[str, Any], wrap: Wrap = unwrapped, devices: int = 1
) -> Generator[tuple[dict[str, Network], str, list[Network]]]:
    """Open every part's engine, and close them at the end of the `with`; one that may not be needed when it is first run.

    Args:
        bundle: whose engines.
        backend: by default onnxruntime, or else the first whose library is here. A part that has only another one's engine runs
            on that.
        options: fields of the backend, instead of those that the engines were built with.
        wrap: what to call instead of each network.
        devices: how often to open the denoiser; as `Pipeline.open`.

    Where the bundle asks for `low_memory`, a part is opened when it is run, and closed when another one is.

    Yields:
        The networks by their part's name, the backends with their versions, and what they compute in where that is not the
        graph's precision, and more networks of the denoiser.

    Raises:
        BundleError, UnsupportedError, MissingDependency: as `Pipeline.open`.

    """
    parts, networks, engines, more = bundle.manifest.running(), dict[str, Network](), dict[str, None](), list[Network]()
    runs = playable(bundle.manifest, backend)
    lacking: MissingDependency | None = None
    frugal = bundle.manifest.low_memory
    if frugal and devices > 1:
        raise UnsupportedError("this bundle was built with low_memory: one network at a time, on one device. Build it without.")
    with ExitStack() as stack:
        turns = stack.enter_context(_Turns())

        def opening(name: str, chosen: Backend, files: Sequence[str]) -> Network:
            return (turns if frugal else stack).enter_context(
                chosen.open([bundle.path(file) for file in files], parts[name].signature)
            )

        for shared, taken in runs.items():
            waiting: dict[str, Callable[[], Network]] = {}
            try:
                for name, part in parts.items():
                    each, built = taken[name], part.engines[taken[name]]
                    chosen = _configure(each, {**built.options, **(options if each == shared else {})})
                    open_it = functools.partial(opening, name, chosen, built.files)
                    # Few pictures start from another one, and few programs want several numbers of steps.
                    late = part.role == "encoder" or len(bundle.manifest.with_role("pipeline")) > 1
                    once = _once(open_it)
                    networks[name] = wrap(name, each, turns.taking(name, open_it) if frugal else _late(once))
                    waiting |= {} if late or frugal else {name: once}
                    inside = chosen.computes(part.precision)
                    engines[" ".join([each, chosen.version, *([inside] if inside != part.precision else [])])] = None
                    for device in range(1, devices if part.role == "denoiser" else 1):
                        other = _configure(each, {**built.options, **(options if each == shared else {})}, device)
                        more.append(wrap(name, each, opening(name, other, built.files)))
                # Reading, checking and compiling of one leaves a processor's cores idle that another can use.
                with ThreadPoolExecutor(len(waiting) or 1) as threads:
                    for opening_one in [threads.submit(once) for once in waiting.values()]:
                        opening_one.result()
                break
            except (MissingDependency, UnsupportedError) as error:
                lacking = _absent(error, lacking)
                engines.clear()
                more.clear()
        else:
            if lacking:
                raise lacking
        yield networks, ", ".join(engines), more


def _absent(error: MissingDependency | UnsupportedError, before: MissingDependency | None) -> MissingDependency:
    """What to install where no library is here: the one that is taken by default.

    A library that runs on other machines alone is no reason to stop at: it would advise the very one that is absent.

    Raises:
        MissingDependency, UnsupportedError: a library refused; says what was absent before it, if something was.

    """
    if isinstance(error, MissingDependency):
        return before or error
    if before:
        raise before from error
    raise error


class _Turns(ExitStack):
    """Holds one part's network open, until another part takes its turn; never while a thread runs it."""

    def __init__(self) -> None:
        super().__init__()
        self.name = ""
        self._turn = threading.Lock()

    def taking(self, name: str, open_it: Callable[[], Network]) -> Network:
        """That part's network, opened when it is run, unless it is the one that is open."""
        found: list[Network] = []

        def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            with self._turn:
                if self.name != name:
                    self.name, found[:] = "", []
                    self.close()
                    found.append(open_it())
                    self.name = name
                return found[0](inputs)

        return run


def _once(open_it: Callable[[], Network]) -> Callable[[], Network]:
    """What opens a network the first time, for all threads, and gives that one from then on."""
    turn, opened_once = threading.Lock(), functools.cache(open_it)

    def once() -> Network:
        with turn:
            return opened_once()

    return once


def _late(once: Callable[[], Network]) -> Network:
    """A network that is there when it is run."""

    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return once()(inputs)

    return run


_P = ParamSpec("_P")
_T = TypeVar("_T")


class _Turned(Protocol):
    @property
    def turn(self) -> AbstractContextManager[Any]: ...


_Self = TypeVar("_Self", bound=_Turned)


def turn(manifest: Draft) -> AbstractContextManager[Any]:
    """What a thread holds for a whole picture: under `low_memory`, else threads would close each other's network every step."""
    return threading.RLock() if manifest.low_memory else nullcontext()


def in_turn(method: Callable[Concatenate[_Self, _P], _T]) -> Callable[Concatenate[_Self, _P], _T]:
    """Have a method run while it holds its object's `turn`."""

    @functools.wraps(method)
    def run(self: _Self, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        with self.turn:
            return method(self, *args, **kwargs)

    return run


def playable(manifest: Draft, wanted: str | None) -> dict[str, dict[str, str]]:
    """Return the backends to try, in order, each with the backend that every part then runs on; all of them, or the wanted one.

    Raises:
        UnsupportedError: there is none.

    """
    runs = manifest.runs()
    if not runs or (wanted and wanted not in runs):
        raise UnsupportedError(
            f"this bundle has no engines of {wanted or 'one backend for all parts'}; it has {', '.join(sorted(runs)) or 'none'}. "
            "Build them with: t2iexport rebuild BUNDLE"
        )
    return {wanted: runs[wanted]} if wanted else runs


def _configure(name: str, options: Mapping[str, Any], device: int = 0) -> Backend:
    kind = plugins.load("backends", name)
    number = {"device": device} if device and "device" in getattr(kind, "model_fields", ()) else {}
    try:
        return kind(**{**options, **number})
    except ValidationError as error:
        raise UnsupportedError(f"{name} does not take these options:\n{describe(error)}") from error


def of(networks: Mapping[str, Sequence[Network]], part: str) -> Sequence[Network]:
    """A part's networks; raise UnsupportedError where the pipeline is one network and its parts have none."""
    if part not in networks:
        raise UnsupportedError(
            f"{part} has no engine of its own: this bundle is one graph from prompt to picture. For that, build it with "
            "pipeline: stepped."
        )
    return networks[part]


def run(networks: Sequence[Network], signature: Signature, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run a part in batches that it can take; a short last one is filled up and cut.

    Where it has several networks, each takes an equal share of the items in a thread of its own.
    """
    low, high, step = signature.lengths(signature.inputs[0].shape[0])
    count = len(next(iter(inputs.values())))
    if len(networks) == 1 and low <= count <= high and not count % step:
        return networks[0](inputs)
    size = min(high, -(-count // (len(networks) * step)) * step)
    shared = signature.shared
    starts = range(0, count, size)

    def piece(network: Network, start: int) -> dict[str, np.ndarray]:
        length = min(size, count - start)
        rows = np.minimum(np.arange(start, start + max(low, -(-length // step) * step)), count - 1)
        own = {key: array if key in shared else array[rows] for key, array in inputs.items()}
        outputs = network(inputs if len(rows) == count else own)
        return {key: array[:length] for key, array in outputs.items()}

    def share(index: int) -> list[dict[str, np.ndarray]]:
        return [piece(networks[index], start) for start in starts[index :: len(networks)]]

    if len(networks) == 1:
        results = share(0)
    else:
        with ThreadPoolExecutor(len(networks)) as threads:
            shares = list(threads.map(share, range(len(networks))))
        results = [shares[index % len(networks)][index // len(networks)] for index in range(len(starts))]
    return {key: np.concatenate([result[key] for result in results]) for key in results[0]}

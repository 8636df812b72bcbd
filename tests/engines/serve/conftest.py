"""A server's parts over small bundles whose networks are Python functions."""

import contextlib
import functools

import pytest

from engines.bundle import Bundle
from engines.pipeline import Pipeline
from engines.serve.options import ServeOptions
from engines.serve.served import ServedBundle
from tests.engines import small


@contextlib.contextmanager
def opened(path, wrap, calls=None, slow=lambda _part: None):
    """As `Pipeline.open`, with small networks, which note what they are called with; `slow` is called first."""
    bundle = Bundle.open(path)

    def network(name, function):
        def call(inputs):
            slow(name)
            return function(inputs)

        return wrap(name, "toy", call)

    networks = {name: network(name, function) for name, function in small.networks(bundle, calls).items()}
    yield Pipeline(bundle, networks, "toy 1")


@pytest.fixture
def serve(tmp_path):
    """Make a small bundle and serve it; what is open at the end is closed."""
    made = []

    def make(name="small", *, calls=None, slow=lambda _part: None, options=None, observed=None, opener=None, **changes):
        path = tmp_path / name
        if not path.exists():
            small.make(path, **changes)
        opening = opener or functools.partial(opened, calls=calls, slow=slow)
        served = ServedBundle(name, path, options or ServeOptions(), opening, *([observed] if observed else []))
        made.append(served)
        return served

    yield make
    for served in made:
        served.threads.shutdown(wait=True)


@pytest.fixture(scope="session")
def small_bundles(tmp_path_factory):
    """Two bundles, the second of which can start from an image; both hand over and take over between two steps."""
    folder = tmp_path_factory.mktemp("bundles")
    for name, encoder in (("small", False), ("editor", True)):
        small.make(folder / name, encoder=encoder, handover=True)
    return {name: folder / name for name in ("small", "editor")}


@pytest.fixture
def server(small_bundles):
    """Start a server over the two bundles; it stops at the end of the test."""
    pytest.importorskip("starlette", reason="the extra [serve] is not installed")
    from tests.engines.serve.live import live

    with contextlib.ExitStack() as stack:

        def start(*, slow=lambda _part: None, calls=None, **options):
            opening = functools.partial(opened, calls=calls, slow=slow)
            return stack.enter_context(live(small_bundles, ServeOptions(**options), opening))

        yield start


@pytest.fixture
def alone(small_bundles):
    """Draw with no server at all."""

    def draw(name="small", *, decoded=True, **arguments):
        with opened(small_bundles[name], lambda _part, _backend, network: network) as pipeline:
            return pipeline.generate(**arguments) if decoded else pipeline.latents(**arguments)

    return draw

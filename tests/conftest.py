"""How the tests are shared out where several processes run them (`make test`)."""

import os
import random
import shutil
import sys
import zlib
from pathlib import Path

import pytest

#: What takes longest begins first, so that no process is left with it at the end.
LONG = ("test_readme", "e2e", "exporter/passes", "exporter", "tools")
HERE = Path(__file__).parent

if "PYTEST_XDIST_WORKER" in os.environ:
    # Each process takes one thread: threads that wait for each other on processors that they share take several times as long.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items):
    """Put the longest files first."""
    names = {path: path.relative_to(HERE).as_posix() for path in {item.path for item in items}}
    places = {
        path: next((number for number, start in enumerate(LONG) if name.startswith(start)), len(LONG))
        for path, name in names.items()
    }
    items.sort(key=lambda item: places[item.path])
    return (yield)


def draw_from(name):
    """Let chance start from a name, in each library that is loaded, so that a test draws the same wherever it runs."""
    seed = zlib.crc32(name.encode())
    random.seed(seed)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(seed)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(seed)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef):
    """A fixture draws the same weights, whichever test asks for it first."""
    draw_from(f"fixture {fixturedef.argname}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item):
    """A test draws the same numbers, whatever ran before it in its process."""
    draw_from(item.nodeid)


@pytest.fixture(scope="session")
def browser():
    """Chromium without a window, which finds no other machine."""
    playwright = pytest.importorskip("playwright.sync_api", reason="it drives the browser: pip install playwright")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("there is no Chromium: apt install chromium")
    alone = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=program, args=alone)
        yield opened
        opened.close()

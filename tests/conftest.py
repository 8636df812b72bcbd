"""How the tests are shared out where several processes run them (`make test`)."""

import os
import shutil
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

"""How the tests are shared out where several processes run them (`make test`)."""

import os
import shutil
from pathlib import Path

import pytest

#: What takes longest begins first, so that no process is left with it at the end.
LONG = ("e2e", "test_readme", "exporter/passes", "exporter", "tools")
HERE = Path(__file__).parent

if "PYTEST_XDIST_WORKER" in os.environ:
    # Each process takes one thread: threads that wait for each other on processors that they share take several times as long.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items):
    """Keep a file's tests in one process, which then makes its fixtures once."""
    # Without effect until xdist writes ids where pytest 9.2 reads them: it sets `_nodeid` (3.8.0), and pytest keeps `_id`.
    names = {path: path.relative_to(HERE).as_posix() for path in {item.path for item in items}}
    places = {
        path: next((number for number, start in enumerate(LONG) if name.startswith(start)), len(LONG))
        for path, name in names.items()
    }
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(names[item.path]))
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

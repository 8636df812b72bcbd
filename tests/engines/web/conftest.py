import json

import pytest

from engines.errors import MachineError
from engines.web import onnxruntime_web
from tests.engines.web import sites


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """The folder of onnxruntime-web."""
    try:
        files = onnxruntime_web.files()
    except MachineError as error:
        pytest.skip(f"onnxruntime-web is not reached: {error}")
    folder = tmp_path_factory.mktemp("onnxruntime-web")
    (folder / "dist").mkdir()
    (folder / "package.json").write_text(json.dumps({"version": onnxruntime_web.VERSION}))
    for name, data in files.items():
        (folder / "dist" / name).write_bytes(data)
    return folder


@pytest.fixture
def serve():
    """Serve a folder until the test ends."""
    running = []

    def start(folder, **headers):
        running.append(sites.serve(folder, {name.replace("_", "-"): value for name, value in headers.items()}))
        return running[-1]

    yield start
    for served in running:
        served.stop()


@pytest.fixture
def visit(browser):
    """Open an address in a page of its own; at the end nothing may have gone wrong in it, nor a request have gone elsewhere."""
    opened = []

    def go(served, query="", **context):
        page = browser.new_context(**context).new_page()
        page.set_default_timeout(60_000)
        requests, wrong = [], []
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda line: wrong.append(f"{line.type}: {line.text} {line.location}"))
        opened.append((page, served, requests, wrong))
        page.goto(f"{served.address}{query}")
        return page

    yield go
    for page, served, requests, wrong in opened:
        assert requests
        assert all(url.startswith((served.address, f"blob:{served.address}")) for url in requests)
        # A test that takes a file away says so; and one may type before the page has given its prompt the focus.
        assert not [line for line in wrong if "status of 404" not in line and "Autofocus processing was blocked" not in line]
        page.context.close()

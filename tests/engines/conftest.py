import shutil

import pytest

from engines.pipeline import Pipeline
from tests.engines import small


@pytest.fixture
def bundle(tmp_path):
    return small.make(tmp_path / "small")


@pytest.fixture
def pipeline(bundle):
    return Pipeline(bundle, small.networks(bundle))


@pytest.fixture
def with_encoder(tmp_path):
    """A pipeline that can start from an image."""
    bundle = small.make(tmp_path / "with_encoder", encoder=True)
    return Pipeline(bundle, small.networks(bundle), "toy 1")


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

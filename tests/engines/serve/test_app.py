import functools
import threading

import pytest

from engines.errors import BundleError

pytest.importorskip("starlette", reason="the extra [serve] is not installed")

from engines.serve.app import Application
from engines.serve.options import ServeOptions
from tests.engines import small
from tests.engines.serve.conftest import opened


def test_health_and_readiness(server):
    live = server()
    assert live.get("/healthz")[2] == {"status": "ok"}
    assert live.get("/readyz")[2] == {"status": "ready", "models": {"small": "open", "editor": "open"}}
    live.application.dispatcher.refuse()
    status, _, told = live.get("/readyz")
    assert (status, told["status"]) == (503, "stopping")
    assert live.get("/healthz")[0] == 200
    status, headers, told = live.post("/v1/images/generations", {"prompt": "sea"})
    assert (status, told["error"]["code"], headers["retry-after"]) == (503, "stopping", "5")


def test_what_runs_when_it_stops_is_finished(small_bundles):
    from tests.engines.serve.live import live

    go, reached, found = threading.Event(), threading.Event(), []

    def slow(part):
        if part == "unet":
            reached.set()
            go.wait(20)

    with live(small_bundles, ServeOptions(), functools.partial(opened, slow=slow)) as running:
        thread = threading.Thread(target=lambda: found.append(running.post("/v1/images/generations", {"prompt": "sea", "n": 3})))
        thread.start()
        assert reached.wait(10)
        threading.Timer(0.3, go.set).start()
    thread.join(20)
    status, _, told = found[0]
    assert (status, len(told["data"])) == (200, 3)


def test_a_damaged_bundle_keeps_the_server_from_starting(tmp_path):
    small.make(tmp_path / "small")
    (tmp_path / "small/samplers/2.json").write_text("{}")
    with pytest.raises(BundleError, match="is damaged"):
        Application({"small": tmp_path / "small"}, ServeOptions(), opened)

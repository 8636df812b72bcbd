"""What the second process says reaches the build's report, and nobody is told to wait for it."""

import io
import json
import threading
import time
from types import SimpleNamespace

import pytest

from exporter.stages import worker
from exporter.stages.store import Store, key

EXPORT = key("export", "unet", options={}, inputs={}, code={}, versions={})
PLAN = SimpleNamespace(stages=[SimpleNamespace(name=("export", "unet"))])


def lines(*events):
    return io.BytesIO("".join(json.dumps(event) + "\n" for event in events).encode())


def test_events_are_passed_on_and_what_was_left_is_given_up():
    heard = []
    events = worker._Events(PLAN, lambda stage, seconds=None, **told: heard.append((stage.name, seconds, told)))
    events.follow(lines(["export", "unet", None, "first build"], ["export", "unet", 2.5, "first build"]))
    told = {"why": "first build", "by": "the second process"}
    assert heard == [(("export", "unet"), None, told), (("export", "unet"), 2.5, told)]
    events.follow(lines(["export", "unet", None, "first build"]))
    assert heard[-1][1] != heard[-1][1]  # NaN
    assert not events.at_work(EXPORT)


@pytest.mark.parametrize("ours", [True, False])
def test_only_others_are_waited_for_aloud(tmp_path, ours):
    said, begun = [], threading.Event()
    store, other = Store(tmp_path, said.append), Store(tmp_path)
    events = worker._Events(PLAN, lambda *_, **__: None)
    if ours:
        events._running["export", "unet"] = ""
    store.ours = events.at_work

    def make(_folder):
        begun.set()
        time.sleep(1.5)

    thread = threading.Thread(target=other.folder, args=(EXPORT, make))
    thread.start()
    begun.wait()
    store.folder(EXPORT, lambda _: pytest.fail("it was made twice"))
    thread.join()
    assert said == ([] if ours else ["waiting for another process that makes export of unet"])


def test_the_store_tells_what_it_makes_and_not_what_it_has(tmp_path):
    told = []
    store = Store(tmp_path, making=lambda wanted, seconds, why: told.append((wanted.stage, seconds is None, why)))
    for _ in range(2):
        store.folder(EXPORT, lambda folder: (folder / "x").write_text(""))
    assert told == [("export", True, "first build"), ("export", False, "first build")]

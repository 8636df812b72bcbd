"""The queue: bounded, fair, over several bundles in as much memory as there is, and stopped in good order."""

import threading
import time

import pytest

from engines.errors import BundleError, UnsupportedError
from engines.samplers import Cancelled
from engines.serve.dispatcher import Dispatcher
from engines.serve.jobs import ImageRequest, Job
from engines.serve.options import ServeOptions
from engines.serve.refusals import Refusal


@pytest.fixture
def start(serve):
    made = []

    def make(names=("small",), *, opener=None, **options):
        gate = threading.Event()
        chosen = ServeOptions(**options)
        slow = options_slow(gate)
        bundles = {name: serve(name, options=chosen, slow=slow, opener=opener) for name in names}
        ended = []
        dispatcher = Dispatcher(bundles, chosen, ended.append)
        made.append((dispatcher, gate))
        return dispatcher, gate, ended

    yield make
    for dispatcher, gate in made:
        gate.set()
        dispatcher.stop(10)
        dispatcher.close()


def options_slow(gate):
    """A denoiser that answers when the gate is open."""
    return lambda part: gate.wait(20) if part == "unet" else None


def job(model="small", seed=1, **arguments):
    return Job(ImageRequest(model, {"prompts": "sea", "steps": 2, **arguments}, (seed,)))


def until(test, seconds=10):
    """Whether something holds, soon."""
    end = time.monotonic() + seconds
    while not test() and time.monotonic() < end:
        time.sleep(0.005)
    return test()


def test_what_is_taken_is_drawn_the_oldest_first(start):
    dispatcher, gate, ended = start()
    jobs = [job(seed=seed) for seed in range(5)]
    for each in jobs:
        dispatcher.submit([each])
    assert until(lambda: len(dispatcher.drawing) == 2)  # as many as the bundle takes at once
    assert dispatcher.waiting == jobs[2:]
    gate.set()
    assert until(lambda: len(ended) == 5)
    assert {each.state for each in jobs} == {"done"}
    assert all(each.data.startswith(b"\x89PNG") for each in jobs)
    assert [each.times["started"] for each in jobs] == sorted(each.times["started"] for each in jobs)


def test_what_is_too_many_is_refused_whole_and_says_when_to_come_again(start):
    dispatcher, gate, _ = start(queue=3)
    dispatcher.submit([job(), job()])
    assert until(lambda: len(dispatcher.drawing) == 2)
    dispatcher.submit([job(), job()])
    with pytest.raises(Refusal, match="2 pictures wait already") as caught:
        dispatcher.submit([job(), job()])
    assert caught.value.status == 429
    assert int(caught.value.headers["retry-after"]) >= 1
    assert len(dispatcher.waiting) == 2
    dispatcher.submit([job()])
    gate.set()


def test_who_is_cancelled_leaves_the_queue_or_stops_at_the_next_network(start):
    dispatcher, gate, ended = start()
    running, waiting = [job(), job()], job()
    dispatcher.submit([*running, waiting])
    assert until(lambda: len(dispatcher.drawing) == 2)
    waiting.cancel()
    assert waiting.state == "cancelled"
    assert waiting not in dispatcher.waiting
    running[0].cancel()
    gate.set()
    assert until(lambda: len(ended) == 3)
    assert [each.state for each in running] == ["cancelled", "done"]
    assert isinstance(running[0].error, Cancelled)


def test_a_fault_is_one_pictures_and_the_others_of_its_batch_are_drawn(start):
    dispatcher, gate, ended = start(batching="fixed", wait_ms=500)
    good, bad = job(seed=3), job(seed=4, guidance_scale=float("nan"))
    assert good.request.company != bad.request.company
    bad = job(seed=4, negative_prompt=7)  # no text: the tokenizer cannot take it
    good = job(seed=3, negative_prompt="blue")
    gate.set()
    dispatcher.submit([good, bad])
    assert until(lambda: len(ended) == 2)
    assert (good.state, bad.state) == ("done", "failed")


def test_fixed_batches_wait_a_little_and_take_only_what_fits(start):
    dispatcher, gate, ended = start(batching="fixed", wait_ms=300)
    gate.set()
    jobs = [job(seed=1), job(seed=2, steps=4, height=64, width=32), job(seed=3)]
    dispatcher.submit(jobs[:1])
    dispatcher.submit(jobs[1:])
    assert until(lambda: len(ended) == 3)
    assert [each.seed for each in ended] == [1, 3, 2]


def test_bundles_open_when_they_are_asked_for_and_the_least_lately_used_makes_room(start):
    dispatcher, gate, ended = start(("one", "two", "three"))
    cost = dispatcher.bundles["one"].cost
    dispatcher._budget = 2 * cost
    dispatcher.open_first()

    def states():
        return [served.state for served in dispatcher.bundles.values()]

    gate.set()
    assert states() == ["open", "open", "closed"]
    for count, name in enumerate(("two", "one", "three"), 1):
        dispatcher.submit([job(name)])
        assert until(lambda count=count: len(ended) == count)
    assert until(lambda: states() == ["open", "closed", "open"])
    assert {each.state for each in ended} == {"done"}


def test_a_bundle_that_is_busy_is_not_closed_and_cannot_keep_another_waiting(start):
    dispatcher, gate, ended = start(("one", "two"))
    dispatcher._budget = dispatcher.bundles["one"].cost
    dispatcher.open_first()
    dispatcher.submit([job("one", 1)])
    assert until(lambda: len(dispatcher.drawing) == 1)
    dispatcher.submit([job("two", 2)])
    dispatcher.submit([job("one", 3)])  # has a free place, and is younger than what needs it closed
    time.sleep(0.05)
    assert len(dispatcher.drawing) == 1
    gate.set()
    assert until(lambda: len(ended) == 3)
    assert [each.seed for each in ended] == [1, 2, 3]
    assert {each.state for each in ended} == {"done"}


def test_a_bundle_that_was_damaged_meanwhile_takes_nothing_else_down(start, tmp_path):
    dispatcher, gate, ended = start(("one", "two"))
    gate.set()
    file = tmp_path / "two/manifest.json"
    content = file.read_bytes()
    file.write_bytes(b"{}")
    broken, fine = job("two"), job("one")
    dispatcher.submit([broken, fine])
    assert until(lambda: len(ended) == 2)
    assert (broken.state, fine.state) == ("failed", "done")
    assert isinstance(broken.error, BundleError)
    file.write_bytes(content)
    dispatcher.submit([again := job("two")])
    assert until(lambda: again.state == "done")


def test_stopping_finishes_what_was_taken_and_takes_no_more(start):
    dispatcher, gate, ended = start()
    dispatcher.submit([job(seed=seed) for seed in range(4)])
    assert until(lambda: len(dispatcher.drawing) == 2)
    dispatcher.refuse()
    with pytest.raises(Refusal, match="the server is stopping"):
        dispatcher.submit([job()])
    threading.Timer(0.1, gate.set).start()
    assert dispatcher.stop(10)
    assert [each.state for each in ended] == ["done"] * 4


def test_stopping_takes_no_longer_than_it_may(start):
    dispatcher, gate, ended = start()
    jobs = [job(seed=seed) for seed in range(3)]
    dispatcher.submit(jobs)
    assert until(lambda: len(dispatcher.drawing) == 2)
    assert not dispatcher.stop(0.1)
    assert (jobs[2].state, jobs[2].error.status) == ("failed", 503)
    gate.set()
    assert until(lambda: len(ended) == 3)
    assert [each.state for each in jobs[:2]] == ["cancelled", "cancelled"]


def test_a_bundle_that_never_fits_is_refused_at_start(start):
    with pytest.raises(UnsupportedError, match="Allow more"):
        start(memory=1e-9)

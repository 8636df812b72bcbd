"""A seed's picture is the same alone and in any batch, and threads never wait for nobody."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.bundle import PartEntry
from engines.errors import UnsupportedError
from engines.samplers import Cancelled
from engines.serve.batcher import Batcher
from engines.serve.jobs import ImageRequest, Job
from engines.signature import Port, Range, Signature


def part(most=8):
    signature = Signature(
        inputs=(Port(name="latent", shape=("batch", "width")), Port(name="timestep", shape=("batch",))),
        outputs=(Port(name="output", shape=("batch", "width")),),
        dims={"batch": Range(min=1, typical=1, max=most), "width": Range(min=1, typical=1, max=9)},
    )
    return PartEntry(role="denoiser", signature=signature, precision="fp32", parameters=1, onnx={}, engines={})


class Parts:
    """Of a manifest, what a batcher reads."""

    def __init__(self, **parts):
        self.parts = parts


def batcher(most=8, wait=1.0, limit=None, seen=None):
    return Batcher(Parts(unet=part(most)), wait, limit, lambda *told: seen.append(told) if seen is not None else None)


def double(inputs):
    return {"output": 2 * inputs["latent"] + inputs["timestep"][:, None]}


def arrays(items, width=3, value=0.0):
    return {"latent": np.full((items, width), value, np.float32), "timestep": np.arange(items, dtype=np.float32)}


def job():
    return Job(ImageRequest("m", {}, (0,)))


def together(calls):
    """Run functions in a thread each; return what each returned or raised."""
    found = [None] * len(calls)

    def run(index, call):
        try:
            found[index] = call()
        except Exception as error:  # noqa: BLE001 - it is what the test looks at
            found[index] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    return found


def drawing(batch, network, inputs, ready=None, times=1):
    """What one picture's thread does."""

    def draw():
        with batch.drawing([job()]):
            if ready:
                ready.wait()
            return [network(inputs) for _ in range(times)][-1]["output"]

    return draw


def test_calls_that_arrive_together_are_one_and_each_gets_its_own():
    seen, ready = [], threading.Barrier(4)
    batch = batcher(seen=seen)
    network = batch.wrap("unet", "toy", double)
    inputs = [arrays(count, value=value) for value, count in enumerate((1, 2, 1, 3))]
    outputs = together([drawing(batch, network, each, ready) for each in inputs])
    for each, output in zip(inputs, outputs, strict=True):
        np.testing.assert_array_equal(output, double(each)["output"])
    assert [(name, items) for name, items, _ in seen] == [("unet", 7)]


def test_no_call_is_larger_than_the_network_takes_or_was_allowed():
    for most, limit in ((3, None), (8, 3)):
        seen, ready = [], threading.Barrier(5)
        batch = batcher(most, limit=limit, seen=seen)
        network = batch.wrap("unet", "toy", double)
        together([drawing(batch, network, arrays(1), ready)] * 5)
        assert max(items for _, items, _ in seen) == 3
        assert sum(items for _, items, _ in seen) == 5


def test_a_picture_alone_does_not_wait():
    batch = batcher(wait=5)
    network = batch.wrap("unet", "toy", double)
    start = time.perf_counter()
    drawing(batch, network, arrays(1), times=20)()
    assert time.perf_counter() - start < 1


def test_a_call_waits_no_longer_than_it_may_for_one_that_does_not_come():
    batch, ready = batcher(wait=0.2), threading.Event()
    network = batch.wrap("unet", "toy", double)

    def elsewhere():
        with batch.drawing([job()]):
            ready.set()
            time.sleep(1.5)

    def late():
        ready.wait()
        start = time.perf_counter()
        drawing(batch, network, arrays(1))()
        return time.perf_counter() - start

    _, taken = together([elsewhere, late])
    assert 0.15 < taken < 1.2


def test_calls_of_other_sizes_are_not_stacked():
    seen, ready = [], threading.Barrier(2)
    batch = batcher(seen=seen)
    network = batch.wrap("unet", "toy", double)
    small, large = together([drawing(batch, network, arrays(1, width), ready) for width in (3, 4)])
    assert (small.shape, large.shape) == ((1, 3), (1, 4))
    assert [items for _, items, _ in seen] == [1, 1]


def test_a_fault_is_its_own_calls_alone():
    batch, ready = batcher(), threading.Barrier(3)

    def picky(inputs):
        if (inputs["latent"] == 1).any():
            raise UnsupportedError("no ones")
        return double(inputs)

    network = batch.wrap("unet", "toy", picky)
    found = together([drawing(batch, network, arrays(1, value=value), ready) for value in range(3)])
    assert isinstance(found[1], UnsupportedError)
    np.testing.assert_array_equal(found[0], double(arrays(1, value=0))["output"])
    np.testing.assert_array_equal(found[2], double(arrays(1, value=2))["output"])


def test_who_is_cancelled_while_it_waits_leaves_and_nobody_else_does():
    batch, entered, go = batcher(wait=5), threading.Event(), threading.Event()

    def slow(inputs):
        entered.set()
        go.wait()
        return double(inputs)

    network, gone = batch.wrap("unet", "toy", slow), job()

    def first():
        return drawing(batch, network, arrays(1))()

    def second():
        entered.wait()
        with batch.drawing([gone]):
            return network(arrays(1))

    def canceller():
        entered.wait()
        time.sleep(0.1)
        gone.cancel()
        batch.wake()
        time.sleep(0.1)
        go.set()

    kept, left, _ = together([first, second, canceller])
    assert isinstance(left, Cancelled)
    np.testing.assert_array_equal(kept, double(arrays(1))["output"])


def test_what_stays_the_same_is_the_same_array_in_the_next_call():
    batch, got = batcher(), []

    def network(inputs):
        got.append(inputs["timestep"])
        return double(inputs)

    call, ready = batch.wrap("unet", "toy", network), threading.Barrier(2)

    def draw():
        inputs = arrays(1)
        inputs["timestep"].flags.writeable = False
        with batch.drawing([job()]):
            for _ in range(3):
                ready.wait()
                call(inputs)

    together([draw, draw])
    assert [len(each) for each in got] == [2, 2, 2]
    assert got[0] is got[1] is got[2]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 2)), min_size=1, max_size=6))
def test_whatever_comes_whenever_everyone_gets_what_it_gets_alone(threads):
    batch = batcher(4, wait=0.002)
    network = batch.wrap("unet", "toy", double)

    def draw(items, times, width):
        def run():
            latent = arrays(items, width, value=float(times))
            with batch.drawing([job()]):
                for _ in range(times):
                    latent = {**latent, "latent": network(latent)["output"]}
            return latent["latent"]

        return run

    def alone(items, times, width):
        latent = arrays(items, width, value=float(times))
        for _ in range(times):
            latent = {**latent, "latent": double(latent)["output"]}
        return latent["latent"]

    for wish, found in zip(threads, together([draw(*each) for each in threads]), strict=True):
        np.testing.assert_array_equal(found, alone(*wish))


@pytest.mark.parametrize("count", [1, 3])
def test_an_error_that_is_no_users_reaches_the_thread_too(count):
    batch, ready = batcher(), threading.Barrier(count)

    def broken(_):
        raise KeyError("a bug")

    network = batch.wrap("unet", "toy", broken)
    assert all(isinstance(found, KeyError) for found in together([drawing(batch, network, arrays(1), ready)] * count))


def test_what_a_call_shares_among_its_items_is_not_stacked_and_must_be_the_same():
    """Weights of a LoRA, say: pictures with the same ones share a call, others do not."""
    entry = part()
    weights = Port(name="weights", shape=(2,))
    signature = entry.signature.model_copy(update={"inputs": (*entry.signature.inputs, weights)})
    seen, ready = [], threading.Barrier(3)
    parts = Parts(unet=entry.model_copy(update={"signature": signature}))
    batch = Batcher(parts, 1.0, None, lambda *told: seen.append(told))
    network = batch.wrap("unet", "toy", lambda inputs: {"output": inputs["latent"] + inputs["weights"].sum()})
    one, other = np.ones(2, np.float32), np.full(2, 5, np.float32)
    calls = [drawing(batch, network, {**arrays(1), "weights": each}, ready) for each in (one, one, other)]
    assert [output.max() for output in together(calls)] == [2, 2, 10]
    assert sorted(items for _, items, _ in seen) == [1, 2]

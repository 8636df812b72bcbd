"""Tensors that stay on a device: copied when they may have changed, one set for each set of sizes."""

import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from tests.engines.backends import scaled
from tests.engines.backends.scaled import SIGNATURE, arrays

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from engines.backends import onnxruntime as module
from engines.backends._device_tensors import Bound
from engines.backends.onnxruntime import OnnxRuntime


@pytest.fixture
def graph(tmp_path):
    return scaled.write(tmp_path / "part.onnx")


@pytest.fixture
def bound(graph):
    """Runs the graph on tensors that stay where they are; of the processor, because a GPU's differ in their place alone."""
    import onnxruntime

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return Bound(onnxruntime, session, SIGNATURE, ("cpu", 0), graphs=True)


def test_bound_tensors_follow_the_sizes(bound):
    for batch, width in ((2, 4), (1, 8), (2, 4)):
        given = arrays(batch, width)
        got = bound(given, SIGNATURE.sizes(given))["y"]
        kept = got.copy()
        np.testing.assert_allclose(got, given["x"] * 3 + given["ids"][:, None], rtol=1e-6)
        other = {**given, "x": np.asfortranarray(given["x"] + 1)}
        np.testing.assert_allclose(bound(other, SIGNATURE.sizes(other))["y"], kept + 3, rtol=1e-6)
        np.testing.assert_array_equal(got, kept)
    assert len(bound._sized) == 2


def test_threads_take_turns_on_bound_tensors(bound, graph):
    run = bound._session.run_with_iobinding

    class Slow:
        def __getattr__(self, name):
            return getattr(session, name)

        def run_with_iobinding(self, *arguments):
            time.sleep(1e-3)  # so that another thread comes in the middle of a call, as on a GPU
            run(*arguments)

    session, bound._session = bound._session, Slow()
    gpu = OnnxRuntime(providers=("CUDAExecutionProvider",))
    engine = module._Session(session, SIGNATURE, graph, bound, turns=not gpu.runs_on_cpu)

    def work(index):
        given = {name: array + index for name, array in arrays().items()}
        want = given["x"] * 3 + given["ids"][:, None]
        return sum(not np.allclose(engine(given)["y"], want, rtol=1e-6) for _ in range(20))

    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(work, range(3))) == [0, 0, 0]


def test_what_nobody_can_change_is_not_copied_again(bound):
    given = arrays()
    sizes = SIGNATURE.sizes(given)
    first = bound(given, sizes)["y"]
    given["x"][...] += 1  # writeable: it may have changed, and has
    np.testing.assert_allclose(bound(given, sizes)["y"], first + 3, rtol=1e-6)
    given["x"].flags.writeable = False
    bound(given, sizes)
    (tensors,) = bound._sized.values()
    tensors.inputs["x"].update_inplace(np.zeros_like(given["x"]))  # what is on the device now is what the next run sees
    np.testing.assert_array_equal(bound(given, sizes)["y"], np.repeat(given["ids"][:, None], 4, axis=1))
    np.testing.assert_allclose(bound({**given, "x": given["x"].copy()}, sizes)["y"], first + 3, rtol=1e-6)


@pytest.mark.parametrize("graphs", [True, False])
def test_each_set_of_sizes_captures_a_graph_of_its_own_on_its_device(graphs):
    """The library is told a number per set of sizes, the device's name and number, shapes and types."""
    numbers, made = [], []

    def allocate(shape, dtype, name, number):
        made.append((tuple(shape), dtype, name, number))
        return SimpleNamespace(update_inplace=lambda _: None, numpy=lambda: np.zeros(shape, dtype))

    vendor = SimpleNamespace(
        RunOptions=lambda: SimpleNamespace(add_run_config_entry=lambda key, value: numbers.append((key, value))),
        OrtValue=SimpleNamespace(ortvalue_from_shape_and_type=allocate),
    )
    binding = SimpleNamespace(bind_ortvalue_input=lambda *_: None, bind_ortvalue_output=lambda *_: None)
    session = SimpleNamespace(io_binding=lambda: binding, run_with_iobinding=lambda *_: None)
    bound = Bound(vendor, session, SIGNATURE, ("cuda", 3), graphs=graphs)
    for batch, width in ((2, 4), (1, 8), (2, 4)):
        given = arrays(batch, width)
        assert bound(given, SIGNATURE.sizes(given))["y"].shape == (batch, width)
    assert numbers == ([("gpu_graph_id", "1"), ("gpu_graph_id", "2")] if graphs else [])
    assert made[:3] == [((2, 4), np.float32, "cuda", 3), ((2,), np.int64, "cuda", 3), ((2, 4), np.float32, "cuda", 3)]
    assert len(made) == 6

"""The runner of both TensorRT backends, against stand-ins for the library and CUDA: buffers, types, errors, kernel cache."""

from __future__ import annotations

import ctypes
import enum
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from engines.backends import tensorrt_rtx
from engines.backends.tensorrt import Tensorrt
from engines.backends.tensorrt_rtx import TensorrtRtx
from engines.errors import UnsupportedError
from tests.backends.small_graph import SIGNATURE, expected, feed, wrong_answers

PORTS = {port.name: port for port in (*SIGNATURE.inputs, *SIGNATURE.outputs)}


class Severity(enum.IntEnum):
    INTERNAL_ERROR, ERROR, WARNING, INFO = range(4)


class Diagnostics(enum.IntFlag):
    VERSION_MISMATCH, UNSUPPORTED_CC, OLD_CUDA_DRIVER, OLD_CUDA_RUNTIME, INSUFFICIENT_GPU_MEMORY, MALFORMED_ENGINE, CUDA_ERROR = (
        1 << bit for bit in range(7)
    )


class Logger:
    Severity = Severity


class Cuda:
    """`cuda.bindings.runtime` over host memory, so that a stray address is a crash and a leak is counted."""

    class cudaError_t(enum.IntEnum):  # noqa: N801 - CUDA's name
        cudaSuccess, cudaErrorMemoryAllocation = 0, 2  # noqa: N815

    cudaDeviceAttr = SimpleNamespace(  # noqa: N815 - CUDA's name
        cudaDevAttrComputeCapabilityMajor="major", cudaDevAttrComputeCapabilityMinor="minor"
    )
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)  # noqa: N815 - CUDA's name

    def __init__(self):
        self.live, self.allocations, self.synchronized, self.room = {}, 0, 0, 1 << 30
        self.copied, self.capability = [], {"major": 8, "minor": 9}

    def cudaGetDevice(self):  # noqa: N802
        return self.cudaError_t.cudaSuccess, 0

    def cudaDeviceGetAttribute(self, attribute, device):  # noqa: N802
        assert device == 0
        return self.cudaError_t.cudaSuccess, self.capability[attribute]

    def cudaMalloc(self, size):  # noqa: N802
        if size > self.room:
            return self.cudaError_t.cudaErrorMemoryAllocation, None
        memory = np.zeros(size, np.uint8)
        self.live[memory.ctypes.data] = memory
        self.allocations += 1
        return self.cudaError_t.cudaSuccess, memory.ctypes.data

    def cudaFree(self, address):  # noqa: N802
        del self.live[address]
        return (self.cudaError_t.cudaSuccess,)

    def cudaMemcpyAsync(self, target, source, size, kind, stream):  # noqa: N802
        assert stream == 7
        self.copied += [size] if kind == 1 else []
        device = target if kind == 1 else source
        assert self.live[device].nbytes >= size
        ctypes.memmove(target, source, size)
        return (self.cudaError_t.cudaSuccess,)

    def cudaStreamCreate(self):  # noqa: N802
        return self.cudaError_t.cudaSuccess, 7

    def cudaStreamSynchronize(self, stream):  # noqa: N802
        self.synchronized += stream == 7
        return (self.cudaError_t.cudaSuccess,)

    def cudaStreamDestroy(self, stream):  # noqa: N802
        assert stream == 7
        return (self.cudaError_t.cudaSuccess,)

    def cudaGetErrorString(self, error):  # noqa: N802
        return self.cudaError_t.cudaSuccess, {2: b"out of memory"}[int(error)]


class Kernels:
    def __init__(self):
        self.held = b""

    def deserialize(self, data):
        self.held = bytes(data)
        return True

    def serialize(self):
        return self.held + b"kernel"


class Context:
    """Computes the small graph from the addresses that it was given."""

    def __init__(self, vendor):
        self.vendor, self.shapes, self.addresses = vendor, {}, {}

    def set_input_shape(self, name, shape):
        self.shapes[name] = tuple(shape)
        return name != self.vendor.bad_input

    def get_tensor_shape(self, name):
        return {"moved": self.vendor.output_shape or self.shapes["latent"], "next_ids": self.shapes["token_ids"]}[name]

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def _array(self, name, shape):
        dtype = np.dtype(PORTS[name].dtype)
        size = int(np.prod(shape)) * dtype.itemsize
        return np.frombuffer((ctypes.c_char * size).from_address(self.addresses[name]), dtype).reshape(shape)

    def execute_async_v3(self, stream):
        assert stream == 7
        if self.vendor.run_fails:
            return False
        for name, array in expected({name: self._array(name, shape) for name, shape in self.shapes.items()}).items():
            self._array(name, array.shape)[...] = array
        return True


class Vendor:
    """The library's module, as far as the runner uses it; its attributes are what a test may break."""

    __name__, __version__ = "tensorrt_rtx", "1.7.1"
    ILogger, EngineInvalidityDiagnostics = Logger, Diagnostics
    CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")
    DynamicShapesKernelSpecializationStrategy = SimpleNamespace(LAZY="lazy", EAGER="eager", NONE="none")
    EngineValidity = enum.Enum("EngineValidity", "VALID SUBOPTIMAL INVALID")

    def __init__(self):
        self.diagnostics, self.bad_input, self.output_shape, self.run_fails = None, None, None, False
        self.loads, self.dtypes, self.names, self.kernels = True, {"float32": "FLOAT", "int64": "INT64"}, list(PORTS), []
        self.configs = []

    def Runtime(self, log):  # noqa: N802
        return SimpleNamespace(
            engine_header_size=64, get_engine_validity=self._validity, deserialize_cuda_engine=lambda data: self._load(log, data)
        )

    def _validity(self, header):
        assert len(header) == 64
        invalid = self.diagnostics is not None
        return (self.EngineValidity.INVALID, self.diagnostics) if invalid else (self.EngineValidity.VALID, 0)

    def _load(self, log, data):
        assert len(data) == 100
        if not self.loads:
            log.log(Severity.ERROR, "the plan is odd")
            log.log(Severity.INFO, "not of interest")
            return None
        return SimpleNamespace(
            num_io_tensors=len(self.names),
            get_tensor_name=self.names.__getitem__,
            get_tensor_dtype=lambda name: SimpleNamespace(name=self.dtypes[PORTS[name].dtype]),
            get_tensor_shape=lambda name: (-1,) * len(PORTS[name].shape),
            create_runtime_config=self._config,
            create_execution_context=lambda *_: Context(self),
        )

    def _config(self):
        self.configs.append(SimpleNamespace(create_runtime_cache=self._cache, set_runtime_cache=self.kernels.append))
        return self.configs[-1]

    def _cache(self):
        return Kernels()


@pytest.fixture
def vendor():
    return Vendor()


@pytest.fixture
def cuda():
    return Cuda()


@pytest.fixture
def file(tmp_path):
    engine = tmp_path / "part.engine"
    engine.write_bytes(bytes(100))
    return engine


@pytest.fixture(params=[TensorrtRtx, Tensorrt])
def opened(request, vendor, cuda, file, monkeypatch):
    """Opens the engine with the stand-ins."""
    module = sys.modules[request.param.__module__]
    monkeypatch.setattr(module, "vendor", lambda name, *_: cuda if name.startswith("cuda") else vendor)
    monkeypatch.setattr(module, "require_driver", lambda *_: None)
    return lambda: request.param().open([file], SIGNATURE)


def test_equals_numpy_while_sizes_grow_and_shrink(opened, cuda):
    with opened() as engine:
        kept = []
        for size in ((1, 2, 4), (4, 8, 16), (2, 4, 8), (1, 2, 4)):
            inputs = feed(*size)
            kept.append((engine(inputs), expected(inputs)))
        assert cuda.allocations == 5 + 4, "only a tensor that outgrows its buffer gets a new one; `scale` never does"
        assert cuda.synchronized == 4
        for got, right in kept:
            for name, array in right.items():
                np.testing.assert_allclose(got[name], array, rtol=1e-6)
                assert got[name].dtype == array.dtype
        strided = feed() | {"latent": np.asfortranarray(feed()["latent"])}
        np.testing.assert_allclose(engine(strided)["moved"], expected(strided)["moved"], rtol=1e-6)
    assert cuda.live == {}
    with pytest.raises(RuntimeError, match="closed"):
        engine(feed())
    engine.__exit__()


def test_threads_get_their_own_answers(opened, cuda, monkeypatch):
    copy = cuda.cudaMemcpyAsync

    def slow(*arguments):
        time.sleep(1e-4)  # so that another thread goes on in the middle of a call, as on a GPU
        return copy(*arguments)

    monkeypatch.setattr(cuda, "cudaMemcpyAsync", slow)
    with opened() as engine:
        assert wrong_answers(engine, [(2, 4, 8), (2, 4, 8), (4, 8, 16)], rounds=12) == 0
    assert cuda.live == {}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"loads": False}, r"cannot load this engine\.\n  the plan is odd\n.*rebuild"),
        ({"names": ["latent", "moved"]}, r"its tensors are \['latent', 'moved'\]"),
        ({"dtypes": {"float32": "HALF", "int64": "INT64"}}, "'latent' is HALF of rank 4, the signature says float32"),
    ],
)
def test_another_engine_is_refused_when_opened(opened, vendor, damage, message):
    vars(vendor).update(damage)
    with pytest.raises(UnsupportedError, match=message):
        opened()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"bad_input": "latent"}, r"input 'latent' cannot be \[2, 4, 8, 8\]"),
        ({"output_shape": (9, 9)}, r"output 'moved' would be \(9, 9\)"),
        ({"run_fails": True}, r"the run failed.\n.*nvidia-smi"),
    ],
)
def test_a_failure_of_a_run_is_named(opened, vendor, damage, message):
    with opened() as engine:
        vars(vendor).update(damage)
        with pytest.raises(UnsupportedError, match=message):
            engine(feed())


def test_what_nobody_can_change_is_not_copied_again(opened, cuda):
    inputs, wide = feed(), feed(4, 8, 16)
    for array in (*inputs.values(), *wide.values()):
        array.flags.writeable = False
    sizes = [array.nbytes for array in inputs.values()]
    with opened() as engine:
        for given, copied in ((inputs, len(sizes)), (inputs, 0), (inputs | {"latent": inputs["latent"].copy()}, 1)):
            cuda.copied.clear()
            np.testing.assert_allclose(engine(given)["moved"], expected(given)["moved"], rtol=1e-6)
            assert len(cuda.copied) == copied
        for given in (wide, inputs, wide):  # buffers that grew hold nothing
            np.testing.assert_allclose(engine(given)["moved"], expected(given)["moved"], rtol=1e-6)


def test_memory_that_runs_out_is_named_and_given_back(opened, cuda):
    with opened() as engine:
        engine(feed(1, 2, 4))
        cuda.room = 100
        with pytest.raises(UnsupportedError, match=r"part\.engine: cudaMalloc failed: out of memory\.\n.*smaller shapes"):
            engine(feed(4, 8, 16))
        cuda.room = 1 << 30
        np.testing.assert_allclose(engine(feed())["moved"], expected(feed())["moved"], rtol=1e-6)
    assert cuda.live == {}


@pytest.mark.parametrize("bit", Diagnostics)
def test_every_reason_of_rtx_has_its_remedy(bit, vendor, cuda, file, monkeypatch):
    monkeypatch.setattr(tensorrt_rtx, "vendor", lambda module, *_: cuda if module.startswith("cuda") else vendor)
    monkeypatch.setattr(tensorrt_rtx, "require_driver", lambda *_: None)
    vendor.diagnostics = int(bit)
    with pytest.raises(UnsupportedError, match=r"part\.engine: this engine cannot run here\.\n  \w") as error:
        TensorrtRtx().open([file], SIGNATURE)
    assert bit.name not in str(error.value), "the remedy is said in words"


@pytest.mark.parametrize(
    ("major", "minor", "remedy"),
    [
        (9, 0, r"no engines for compute capability 9\.0: run .*CUDAExecutionProvider"),
        (10, 3, r"no engines for compute capability 10\.3"),
        (8, 6, "add its generation"),
        (12, 1, "add its generation"),
    ],
)
def test_rtx_says_whether_a_gpu_could_have_engines(major, minor, remedy, vendor, cuda, file, monkeypatch):
    monkeypatch.setattr(tensorrt_rtx, "vendor", lambda module, *_: cuda if module.startswith("cuda") else vendor)
    monkeypatch.setattr(tensorrt_rtx, "require_driver", lambda *_: None)
    vendor.diagnostics, cuda.capability = int(Diagnostics.UNSUPPORTED_CC), {"major": major, "minor": minor}
    with pytest.raises(UnsupportedError, match=remedy):
        TensorrtRtx().open([file], SIGNATURE)


@pytest.mark.parametrize("bit", Diagnostics)
def test_where_rtx_builds_only_the_file_counts(bit, vendor, file):
    vendor.diagnostics = int(bit)
    if bit in (Diagnostics.VERSION_MISMATCH, Diagnostics.MALFORMED_ENGINE):
        with pytest.raises(UnsupportedError, match="rebuild"):
            tensorrt_rtx._inspect(vendor, file)
    else:
        tensorrt_rtx._inspect(vendor, file)


def test_rtx_is_told_how_to_run(vendor, cuda, file, monkeypatch):
    monkeypatch.setattr(tensorrt_rtx, "vendor", lambda module, *_: cuda if module.startswith("cuda") else vendor)
    monkeypatch.setattr(tensorrt_rtx, "require_driver", lambda *_: None)
    for options, told in (({}, (None, "lazy")), ({"cuda_graph": True, "kernels": "eager"}, ("whole", "eager"))):
        with TensorrtRtx(**options).open([file], SIGNATURE):
            config = vendor.configs[-1]
            assert (getattr(config, "cuda_graph_strategy", None), config.dynamic_shapes_kernel_specialization_strategy) == told


def test_rtx_keeps_compiled_kernels_beside_the_engine(vendor, cuda, file, monkeypatch):
    monkeypatch.setattr(tensorrt_rtx, "vendor", lambda module, *_: cuda if module.startswith("cuda") else vendor)
    monkeypatch.setattr(tensorrt_rtx, "require_driver", lambda *_: None)
    for expected_kernels in (b"kernel", b"kernelkernel"):
        with TensorrtRtx().open([file], SIGNATURE):
            pass
        assert {path.name: path.read_bytes() for path in (file.parent / "cache").iterdir()} == {"part.engine": expected_kernels}
    assert len(vendor.kernels) == 2


def test_rtx_opens_a_bundle_that_cannot_be_written(vendor, cuda, file, monkeypatch):
    monkeypatch.setattr(tensorrt_rtx, "vendor", lambda module, *_: cuda if module.startswith("cuda") else vendor)
    monkeypatch.setattr(tensorrt_rtx, "require_driver", lambda *_: None)
    (file.parent / "cache").write_text("a file where the folder would be")
    with TensorrtRtx().open([file], SIGNATURE) as engine:
        engine(feed())
    assert cuda.live == {}

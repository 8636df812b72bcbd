"""What the two TensorRT backends share: running an engine file on the GPU, with device memory from cuda-bindings.

The vendor module and `cuda` (the module `cuda.bindings.runtime`) are arguments; nothing here imports a library. No GPU has run
this file yet: its logic is tested against stand-ins for both modules.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from engines.backends._tensorrt import DTYPES, messages
from engines.errors import UnsupportedError
from engines.signature import Port, Signature

#: engine → (execution context, what to do before it is released).
Start = Callable[[Any], tuple[Any, Callable[[], None]]]


def map_file(file: Path) -> mmap.mmap | bytes:
    """Bytes of a file without reading them: an engine has gigabytes. An empty file cannot be mapped, and is `b""`."""
    with file.open("rb") as opened:
        return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) if file.stat().st_size else b""


def capability(cuda: Any, file: Path) -> tuple[int, int]:  # noqa: ANN401
    """Compute capability of the current GPU, major and minor; raise UnsupportedError, naming the file, where CUDA fails."""
    number = call(cuda, file, "cudaGetDevice")
    attributes = cuda.cudaDeviceAttr
    wanted = attributes.cudaDevAttrComputeCapabilityMajor, attributes.cudaDevAttrComputeCapabilityMinor
    major, minor = (int(call(cuda, file, "cudaDeviceGetAttribute", each, number)) for each in wanted)
    return major, minor


def call(cuda: Any, file: Path, function: str, *arguments: object) -> Any:  # noqa: ANN401
    """Call CUDA for an engine's file; its one result, or None.

    Raises:
        UnsupportedError: it did not succeed.

    """
    error, *results = getattr(cuda, function)(*arguments)
    if error != cuda.cudaError_t.cudaSuccess:
        reason = cuda.cudaGetErrorString(error)[1].decode()
        remedy = "Free memory of the GPU or use smaller shapes" if "memory" in reason else "Check the GPU with nvidia-smi"
        raise UnsupportedError(f"{file.name}: {function} failed: {reason}.\n  {remedy}.")
    return results[0] if results else None


class DeviceEngine:
    """One engine with its stream and its buffers on the GPU. Threads take turns: an execution context runs one call at a time.

    Args:
        trt: the vendor's module.
        cuda: `cuda.bindings.runtime`.
        file: what `build` wrote.
        signature: the part's contract; the engine is compared with it.
        start: makes the execution context.

    Raises:
        UnsupportedError: the library refuses this file, it is not the signature's engine, or the GPU fails.

    """

    def __init__(self, trt: Any, cuda: Any, file: Path, signature: Signature, start: Start) -> None:  # noqa: ANN401
        self._cuda, self._signature, self._file, self._log = cuda, signature, file, messages(trt)
        self._log.kept.clear()
        self._runtime = trt.Runtime(self._log)  # must outlive its engine
        self._engine: Any = self._runtime.deserialize_cuda_engine(map_file(file))
        if self._engine is None:
            raise self._error(f"{trt.__name__} cannot load this engine", "Build it here: t2iexport rebuild BUNDLE")
        self._compare()
        self._context: Any
        self._context, self._finish = start(self._engine)
        if self._context is None:
            raise self._error("no execution context", "Free memory of the GPU, or build for smaller shapes")
        self._buffers: dict[str, tuple[int, int]] = {}  # name → device address, bytes
        self._held: dict[str, np.ndarray] = {}  # name → what its buffer holds
        self._stream = self._gpu("cudaStreamCreate")
        self._turn = threading.Lock()

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once. Outputs are new arrays, the caller's own.

        Raises:
            UnsupportedError: inputs that are not the signature's, or a failure of the GPU.

        """
        inputs = self._signature.filled(inputs)
        sizes = self._signature.sizes(inputs)
        with self._turn:
            if self._context is None:
                raise RuntimeError(f"{self._file.name} is closed")
            return self._run(inputs, sizes)

    def _run(self, inputs: Mapping[str, np.ndarray], sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
        kinds = self._cuda.cudaMemcpyKind
        sources = {port.name: np.asarray(inputs[port.name], order="C") for port in self._signature.inputs}
        for name, array in sources.items():
            if not self._context.set_input_shape(name, array.shape):
                raise self._error(f"input {name!r} cannot be {list(array.shape)}", "Use a size inside the recipe's shapes")
            address = self._bind(name, array.nbytes)
            given = inputs[name]
            if not given.flags.writeable and self._held.get(name) is given:
                continue  # nobody can have changed it, and it is on the GPU
            self._held[name] = given
            self._gpu("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kinds.cudaMemcpyHostToDevice, self._stream)
        outputs = {port.name: np.empty(self._signature.shape(port, sizes), port.dtype) for port in self._signature.outputs}
        for name, array in outputs.items():
            shape = tuple(self._context.get_tensor_shape(name))
            if shape != array.shape:  # a larger one would be written past the end of its buffer
                raise self._error(f"output {name!r} would be {shape}, its signature says {array.shape}", "Build it again")
            self._bind(name, array.nbytes)
        if not self._context.execute_async_v3(int(self._stream)):
            raise self._error("the run failed", "Try smaller shapes; check the GPU with nvidia-smi")
        for name, array in outputs.items():
            address = self._buffers[name][0]
            self._gpu("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kinds.cudaMemcpyDeviceToHost, self._stream)
        self._gpu("cudaStreamSynchronize", self._stream)
        return outputs

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Release memory, stream and engine. Safe to repeat."""
        with self._turn:
            self._release()

    def _release(self) -> None:
        if self._context is None:
            return
        self._finish()
        for address, _ in self._buffers.values():
            self._gpu("cudaFree", address)
        self._gpu("cudaStreamDestroy", self._stream)
        self._buffers.clear()
        self._held.clear()
        self._context = self._engine = self._runtime = None  # in the order in which each needs the next

    def _bind(self, name: str, size: int) -> int:
        """Bind a device buffer of at least `size` bytes; its address. Calls end synchronized: growing frees nothing in use."""
        address, capacity = self._buffers.get(name, (0, 0))
        if capacity < max(size, 1):
            if address:
                del self._buffers[name]
                self._held.pop(name, None)
                self._gpu("cudaFree", address)
            address = int(self._gpu("cudaMalloc", max(size, 1)))
            self._buffers[name] = (address, max(size, 1))
        if not self._context.set_tensor_address(name, address):
            raise self._error(f"tensor {name!r} cannot be bound", "Build the engine again")
        return address

    def _gpu(self, function: str, *arguments: object) -> Any:  # noqa: ANN401
        return call(self._cuda, self._file, function, *arguments)

    def _compare(self) -> None:
        """Raise UnsupportedError where the engine's names, types or ranks are not the signature's: the audit that needs a GPU."""
        engine, problems = self._engine, list[str]()
        found = {engine.get_tensor_name(index) for index in range(engine.num_io_tensors)}
        ports: list[Port] = [*self._signature.inputs, *self._signature.outputs]
        if found != {port.name for port in ports}:
            problems.append(f"its tensors are {sorted(found)}, the signature says {sorted(port.name for port in ports)}")
        for port in ports:
            if port.name not in found:
                continue
            dtype, rank = engine.get_tensor_dtype(port.name).name, len(tuple(engine.get_tensor_shape(port.name)))
            if (dtype, rank) != (DTYPES[port.dtype], len(port.shape)):
                problems.append(f"{port.name!r} is {dtype} of rank {rank}, the signature says {port.dtype} {port.shape}")
        if problems:
            raise self._error("; ".join(problems), "This engine belongs to another part: t2iexport rebuild BUNDLE")

    def _error(self, what: str, remedy: str) -> UnsupportedError:
        said = self._log.last() if self._log.kept else ""
        return UnsupportedError("\n".join(filter(None, [f"{self._file.name}: {what}.", said, f"  {remedy}."])))

"""OpenVINO: x86 and Arm CPUs, in bf16 where the CPU has instructions for it."""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self
from uuid import uuid4

import numpy as np
from pydantic import Field

from engines.backends import BackendOptions, OperatorRun, vendor
from engines.errors import MachineError, UnsupportedError
from engines.signature import Port, Signature

__all__ = ["OpenVino"]
#: dtype of a port → name of the library's element type.
_TYPES = {"float32": "f32", "int64": "i64"}
#: Arithmetic of the processor → precision class of what comes out.
_CLASSES = {"f32": "fp32", "bf16": "bf16", "f16": "fp16"}
#: From fine to coarse.
_COARSENESS = ("fp32", "fp16", "bf16")


class OpenVino(BackendOptions):
    """Runs on x86 and Arm processors, from OpenVINO's own file format.

    Attributes:
        precision: of the arithmetic inside, whatever the graph was exported in. `auto` asks the processor when the engine is
            opened: bf16 where it has instructions for it (AMX, AVX512_BF16), else f32. bf16 elsewhere is right, and slow.
        weights: in the engine's file, and mapped from it: as the graph has them, or halved to `f16`, which is finer than bf16
            arithmetic and takes half the disk and a third of the memory less.
        threads: of one network, and not pinned, since every process would pin its own to the same cores; 0 takes every core.
        cache: keep the compiled model in `cache` beside the engine, where that can be written, and start from it next time.
            It saves a second for small graphs of many nodes and nothing for large ones, and takes as much disk as the weights.

    """

    opset: ClassVar[int] = 20
    distributions: ClassVar[tuple[str, ...]] = ("openvino",)
    extra: ClassVar[str] = "openvino"
    modules: ClassVar[tuple[str, ...]] = ("openvino",)
    formats: ClassVar[Mapping[str, str]] = {
        "int8": "int8 arithmetic (VNNI)",
        "int8-smoothquant": "as int8",
        "int8-hybrid": "as int8 and int8-weights",
        "int8-weights": "products from int8 weights; convolutions unpacked when loaded",
        "int4-weights": "products from int4 weights, inputs rounded on the way; convolutions unpacked when loaded",
    }
    refused_formats: ClassVar[Mapping[str, str]] = {
        "fp8": "its processor kernels have no fp8 arithmetic: it converts to f32 around every layer",
    }
    carriers: ClassVar[frozenset[str]] = BackendOptions.carriers | {"Reorder", "Subgraph", "FakeQuantize", "Convert"}

    precision: Literal["auto", "f32", "bf16", "f16"] = "f32"
    weights: Literal["graph", "f16"] = "graph"
    threads: int = Field(default=0, ge=0, le=1024)
    cache: bool = False

    @property
    def runs_on_cpu(self) -> bool:
        """It does."""
        return True

    @property
    def ignores_zeros(self) -> str:
        """It reads less, and computes as much."""
        return "OpenVINO unpacks sparse int8 weights on processors with AMX alone, and computes with the zeros"

    def refuse(self, precision: str) -> None:
        """Raise UnsupportedError for fp8 and fp4, for which the library has no kernels on a processor."""
        if precision in {"fp8", "fp4"}:
            raise UnsupportedError(
                f"openvino cannot run {precision} on a processor: it has no such kernels. Use fp32, fp16, bf16, int8 or int4."
            )

    def computes(self, precision: str) -> str:
        """The coarsest of the graph's precision, the weights', and the arithmetic that `open` will ask of this processor.

        Raises:
            MissingDependency: the library is not installed, so the processor cannot be asked.

        """
        inside = _CLASSES[self._arithmetic(_library().Core())]
        halved = "fp16" if self.weights == "f16" else precision
        return max(precision, halved, inside, key=_COARSENESS.index) if precision in _COARSENESS else precision

    def build(self, onnx: Path, signature: Signature, folder: Path) -> list[Path]:
        """Convert to `<stem>.xml` and `<stem>.bin`. The same graph and options give the same bytes.

        Raises:
            UnsupportedError: the library cannot read the graph, or it is not what the signature says.
            MachineError: what it makes cannot be written.
            MissingDependency: the library is not installed.

        """
        vendor = _library()
        try:
            model = vendor.Core().read_model(onnx)
        except RuntimeError as error:
            raise UnsupportedError(
                f"{onnx.name}: openvino cannot read this graph.\n  {_last(error)}\n"
                "  Export it again with the backend's own operator set, or leave this target out."
            ) from error
        _compare(model, signature, onnx.name)
        try:
            model.reshape({port.name: _extent(vendor, signature, port) for port in signature.inputs})
        except RuntimeError as error:
            raise UnsupportedError(
                f"{onnx.name}: this graph does not take the sizes of its signature.\n  {_last(error)}\n  Build the bundle again."
            ) from error
        for index, node in enumerate(model.get_ordered_ops()):
            # Names that the library makes up count on through the life of the process; the same graph must give the same bytes.
            if node.get_friendly_name() == node.get_name():
                node.set_friendly_name(f"{node.get_type_name()}_{index}")
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{onnx.stem}.{uuid4().hex[:8]}.partial"
        temporary.mkdir()
        try:
            vendor.save_model(model, temporary / f"{onnx.stem}.xml", compress_to_fp16=self.weights == "f16")
            return [(temporary / name).replace(folder / name) for name in (f"{onnx.stem}.xml", f"{onnx.stem}.bin")]
        except RuntimeError as error:
            raise MachineError(
                f"{folder}: openvino could not write {onnx.stem}.xml: {_last(error)}.\n"
                "  Is there room, and may this user write there?"
            ) from error
        finally:
            shutil.rmtree(temporary)

    def open(self, files: Sequence[Path], signature: Signature, more: Mapping[str, Any] | None = None) -> _Compiled:
        """Compile the model, whichever of the files is the `.xml`, for this processor.

        Raises:
            UnsupportedError: the library cannot, or would compute in another precision than asked, or the model is not what
                the signature says.
            MissingDependency: the library is not installed.

        """
        vendor = _library()
        file = next((file for file in files if file.suffix == ".xml"), files[0])
        core = vendor.Core()
        arithmetic = self._arithmetic(core)
        hints: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": arithmetic}
        hints |= {"INFERENCE_NUM_THREADS": self.threads, "ENABLE_CPU_PINNING": False} if self.threads else {}
        hints |= more or {}
        if self.cache and os.access(file.parent, os.W_OK):
            hints["CACHE_DIR"] = str(file.parent / "cache")
        try:
            model = core.read_model(file)
            _compare(model, signature, file.name)
            compiled = core.compile_model(model, "CPU", hints)
        except RuntimeError as error:
            raise UnsupportedError(f"openvino cannot load {file}.\n  {_last(error)}\n  t2iexport rebuild BUNDLE") from error
        if (found := compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()) != arithmetic:
            raise UnsupportedError(
                f"{file.name}: openvino would compute in {found} on this processor, not in {arithmetic}.\n"
                f"  Set the target's precision to auto or {found}."
            )
        return _Compiled(vendor, compiled, signature, file)

    def profile(self, files: Sequence[Path], signature: Signature, inputs: Mapping[str, np.ndarray]) -> list[OperatorRun]:
        """Every step of one call, as the library fused them; its kernels name their instructions."""
        engine = self.open(files, signature, {"PERF_COUNT": "YES"})
        engine(inputs)  # which compiles kernels
        engine(inputs)
        ran = [step for step in engine.idle[-1].request.profiling_info if step.status.name == "EXECUTED"]
        return [
            OperatorRun(
                str(step.node_type),
                "int8" if str(step.exec_type).lower().endswith("8") else "float",
                step.real_time.total_seconds(),
                str(step.exec_type),
            )
            for step in ran
        ]

    def _arithmetic(self, core: Any) -> str:  # noqa: ANN401 - the library ships no strict types
        if self.precision != "auto":
            return self.precision
        return "bf16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"


def _library() -> Any:  # noqa: ANN401
    return vendor("openvino", "openvino", "openvino")


def _last(error: RuntimeError) -> str:
    """Return what the library said, without its own files and lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.startswith("Exception from ")]
    return " ".join(lines)[-600:] or "it gave no reason"


def _extent(vendor: Any, signature: Signature, port: Port) -> Any:  # noqa: ANN401
    """Shape of a port with the signature's ranges in it; a range of one length is a fixed one."""
    bounds = [signature.lengths(dim)[:2] for dim in port.shape]
    return vendor.PartialShape([vendor.Dimension(low, high) for low, high in bounds])


def _compare(model: Any, signature: Signature, name: str) -> None:  # noqa: ANN401
    for tensors, ports in ((model.inputs, signature.inputs), (model.outputs, signature.outputs)):
        found = sorted((tensor.any_name, tensor.element_type.get_type_name()) for tensor in tensors)
        wanted = sorted((port.name, _TYPES[port.dtype]) for port in ports)
        if found != wanted:
            raise UnsupportedError(f"{name} has the ports {found}; its signature says {wanted}. Build the bundle again.")


class _Request:
    """One run at a time of a compiled model, with buffers of its own."""

    def __init__(self, vendor: Any, compiled: Any) -> None:  # noqa: ANN401
        self._tensor, self.request = vendor.Tensor, compiled.create_infer_request()
        self._given: dict[str, np.ndarray] = {}  # name → what the library reads
        self._held: dict[str, np.ndarray] = {}  # name → what was given that nobody writes to

    def __call__(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[Port]) -> dict[str, np.ndarray]:
        for name, array in inputs.items():
            if not array.flags.writeable:
                if self._held.get(name) is not array:
                    self._bind(name, _unwritten(array))
                    self._held[name] = array
                continue
            if self._held.pop(name, None) is not None or name not in self._given or self._given[name].shape != array.shape:
                # Only for a new size: setting tensors makes the library go over its graph: 2% of the time of a small UNet.
                self._bind(name, np.empty(array.shape, array.dtype))
            np.copyto(self._given[name], array)
        self.request.infer()
        return {port.name: self.request.get_tensor(port.name).data.copy() for port in outputs}

    def _bind(self, name: str, array: np.ndarray) -> None:
        self.request.set_tensor(name, self._tensor(array, shared_memory=True))
        self._given[name] = array


def _unwritten(array: np.ndarray) -> np.ndarray:
    """The array behind a view that nobody writes to, since the library shares no other; a copy where it shows a part."""
    base = array.base
    if base is None or not (base.flags.writeable and base.flags.c_contiguous):
        return array.copy()
    same = (base.shape, base.dtype, base.ctypes.data) == (array.shape, array.dtype, array.ctypes.data)
    return base if same else array.copy()


class _Compiled:
    """An opened engine: what the caller gives and gets is copied, and never written to again.

    Attributes:
        idle: requests that no thread uses. There are as many as ever ran at once, since a request holds one run's arrays.

    """

    def __init__(self, vendor: Any, compiled: Any, signature: Signature, file: Path) -> None:  # noqa: ANN401
        self._vendor, self._compiled, self._signature, self._file = vendor, compiled, signature, file
        self.idle = deque([_Request(vendor, compiled)])

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        compiled = self._compiled
        if compiled is None:
            raise RuntimeError(f"{self._file.name} was closed")
        inputs = self._signature.filled(inputs)
        self._signature.sizes(inputs)
        try:
            try:
                request = self.idle.pop()
            except IndexError:  # every one is at work in other threads
                request = _Request(self._vendor, compiled)
            answer = request(inputs, self._signature.outputs)
        except RuntimeError as error:
            raise UnsupportedError(f"openvino failed in {self._file.name}: {_last(error)}") from error
        if self._compiled is not None:
            self.idle.append(request)  # one that failed is not used again
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._compiled = None
        self.idle.clear()

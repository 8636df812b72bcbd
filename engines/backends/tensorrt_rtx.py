"""TensorRT for RTX: ahead-of-time engines for GeForce and RTX GPUs, built on any x86-64 machine, with or without a GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from engines.backends import BackendOptions, Engine, _reproducible_build, _tensorrt, require_driver, vendor
from engines.backends._tensorrt_engine import DeviceEngine, capability
from engines.errors import UnsupportedError
from engines.plugins import did_you_mean
from engines.signature import Signature

__all__ = ["TensorrtRtx"]

#: The library's own ComputeCapability members, oldest first (1.7). A recipe is validated on machines without the library.
_KNOWN = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
#: Bit of the library's EngineInvalidityDiagnostics → what to do about it.
_REMEDIES = {
    "VERSION_MISMATCH": "it was built by another release of TensorRT-RTX: t2iexport rebuild BUNDLE",
    "UNSUPPORTED_CC": "it was not built for this GPU: add its generation to the target's compute_capabilities and build again",
    "OLD_CUDA_DRIVER": "the NVIDIA driver is too old: update it",
    "OLD_CUDA_RUNTIME": "the CUDA runtime is too old: update it",
    "INSUFFICIENT_GPU_MEMORY": "the GPU has too little free memory: free some, or build for smaller shapes or precision",
    "MALFORMED_ENGINE": "it is not an engine, or damaged: t2iexport rebuild BUNDLE",
    "CUDA_ERROR": "CUDA does not work here: check the installation with nvidia-smi",
}
#: What is wrong with the file itself, wherever it was built; the rest is about the GPU that it is opened on.
_FILE = ("VERSION_MISMATCH", "MALFORMED_ENGINE")


def _capability(value: str) -> str:
    if value in _KNOWN:
        return value
    digits = "".join(filter(str.isdigit, value))
    same = [known for known in _KNOWN if known.replace(".", "") == digits]  # sm89, 89, 8_9
    if same:
        raise ValueError(f"no compute capability {value!r}; did you mean {same[0]!r}?")
    if digits[:2] in {"90", "10", "11"}:
        raise ValueError(f"TensorRT-RTX has {', '.join(_KNOWN)}, and not {value} (a datacentre GPU): use the target tensorrt")
    raise ValueError(f"no compute capability {value!r}{did_you_mean(value, list(_KNOWN))}")


def _ordered(values: tuple[str, ...]) -> tuple[str, ...]:
    # One spelling for one set of targets, so that it is one key of the cache.
    return tuple(sorted(set(values), key=_KNOWN.index))


def _number(capability: str) -> tuple[int, int]:
    major, minor = capability.split(".")
    return int(major), int(minor)


class TensorrtRtx(BackendOptions):
    """Options of TensorRT-RTX.

    `compute_capabilities` names the GPU generations that the engine must run on: "7.5" Turing, "8.0" and "8.6" Ampere, "8.9" Ada,
    "12.0" and "12.1" Blackwell. Empty means one portable engine for Ampere and newer, which cannot hold FP8 or FP4.

    `optimization_level` is the builder's effort, 0 to 5; 3 is its own default.

    `tf32` lets float32 matrix products round their operands to 10 bits of mantissa. The library's default is on; here it is off,
    because a part that was asked for in fp32 was asked for to be exact, and fp16 is both faster and as coarse.

    `cuda_graph` captures the whole run once for each size, and replays it.

    `kernels` says when code is made for sizes that were left open: `lazy` in the background, while the first runs use slower
    code; `eager` before the first run; `none` never.
    """

    opset: ClassVar[int] = 20
    distributions: ClassVar[tuple[str, ...]] = ("tensorrt_rtx",)
    extra: ClassVar[str] = "tensorrt-rtx"
    modules: ClassVar[tuple[str, ...]] = ("tensorrt_rtx",)
    formats: ClassVar[Mapping[str, str]] = {
        "int8": "int8 arithmetic; speed not documented by the vendor",
        "int8-smoothquant": "as int8",
        "int8-hybrid": "as int8 and int8-weights",
        "int8-weights": "stays packed in the engine",
        "int4-weights": "stays packed in the engine; compute capability 8.0 and newer",
        "fp8": "8.9 and newer, which must be named: never with the portable default",
    }

    compute_capabilities: Annotated[tuple[Annotated[str, AfterValidator(_capability)], ...], AfterValidator(_ordered)] = ()
    optimization_level: int = Field(default=3, ge=0, le=5)
    tf32: bool = False
    cuda_graph: bool = False
    kernels: Literal["lazy", "eager", "none"] = "lazy"

    @property
    def ignores_zeros(self) -> str:
        """It was asked to look for them, and did not."""
        return "TensorRT-RTX 1.7 takes the builder's flag SPARSE_WEIGHTS and makes the same engine, byte for byte"

    def refuse(self, precision: str) -> None:
        """Raise UnsupportedError, with what to name instead, when a target or the portable default has no such precision."""
        oldest = _tensorrt.oldest(precision)
        newer = [known for known in _KNOWN if _number(known) >= oldest]
        if not self.compute_capabilities and precision in {"fp8", "fp4"}:
            # The library builds such an engine without a word; it cannot hold code for the older targets that it claims.
            raise UnsupportedError(
                f"{precision} does not exist on every GPU of TensorRT-RTX's portable default (Ampere and newer).\n"
                f"  Name the targets: compute_capabilities: {newer}, or a part of them."
            )
        short = [target for target in self.compute_capabilities if _number(target) < oldest]
        if short:
            rest = [target for target in self.compute_capabilities if target not in short] or newer
            raise UnsupportedError(
                f"{precision} needs compute capability {oldest[0]}.{oldest[1]}; compute_capabilities names {', '.join(short)}.\n"
                f"  Name {rest}, or give {', '.join(short)} a target of its own with fp16."
            )

    def computes(self, precision: str) -> str:
        """The graph's own precision; fp32 under `tf32` has the mantissa of fp16."""
        return "fp16" if self.tf32 and precision == "fp32" else precision

    def build(self, onnx: Path, signature: Signature, folder: Path) -> list[Path]:
        """Build `<stem of onnx>.engine`; needs no GPU. The same graph and options give the same bytes.

        Raises:
            MissingDependency: TensorRT-RTX is not installed.
            UnsupportedError: it cannot build this graph for these targets, or the graph is not what the signature says.

        """
        self._vendor()  # a missing library is said here, not by the other process
        return _reproducible_build.build("tensorrt_rtx", self, onnx, signature, folder)

    def build_here(self, onnx: Path, signature: Signature, folder: Path) -> list[Path]:
        """Build in this process."""
        trt = self._vendor()

        def configure(config: Any) -> None:  # noqa: ANN401
            config.builder_optimization_level = self.optimization_level
            (config.set_flag if self.tf32 else config.clear_flag)(trt.BuilderFlag.TF32)
            config.num_compute_capabilities = len(self.compute_capabilities)
            for index, target in enumerate(self.compute_capabilities):
                member = getattr(trt.ComputeCapability, f"SM{target.replace('.', '')}", None)
                if member is None or not config.set_compute_capability(member, index):
                    raise UnsupportedError(
                        f"TensorRT-RTX {trt.__version__} does not know compute capability {target}.\n"
                        f"  It knows {', '.join(trt.ComputeCapability.__members__)}: install another release, or leave it out."
                    )

        engine = _tensorrt.build(trt, onnx, signature, folder, configure)
        _inspect(trt, engine)
        return [engine]

    def open(self, files: Sequence[Path], signature: Signature) -> Engine:
        """Load an engine on this machine's GPU.

        Raises:
            MissingDependency: TensorRT-RTX or cuda-bindings is not installed.
            UnsupportedError: no driver or GPU, or this GPU, driver or release cannot run the engine; says which.

        """
        trt = self._vendor()
        require_driver(
            f"Running the TensorRT-RTX engine {files[0].name}",
            "Copy the bundle to the machine with the GPU; here, run it with the backend onnxruntime.",
        )
        cuda = vendor("cuda.bindings.runtime", "cuda-bindings", self.extra)
        _inspect(trt, files[0], capability(cuda, files[0]))
        # Kernels that were compiled for this GPU are kept beside the engine, so that the next start is quick.
        cache = files[0].parent / "cache" / files[0].name
        return DeviceEngine(trt, cuda, files[0], signature, lambda engine: self._start(trt, engine, cache))

    def _start(self, trt: Any, engine: Any, cache: Path) -> tuple[Any, Callable[[], None]]:  # noqa: ANN401
        """Make an execution context whose compiled kernels are read from `cache` and written back when it is released."""
        config = engine.create_runtime_config()
        kernels = config.create_runtime_cache()
        if cache.is_file():
            kernels.deserialize(cache.read_bytes())  # False where GPU, driver or release changed: it then starts empty
        config.set_runtime_cache(kernels)
        if self.cuda_graph:
            config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        strategies = trt.DynamicShapesKernelSpecializationStrategy
        config.dynamic_shapes_kernel_specialization_strategy = getattr(strategies, self.kernels.upper())

        def save() -> None:
            # A bundle may lie on a disk that cannot be written; then the next start is only slower.
            with contextlib.suppress(OSError):
                cache.parent.mkdir(exist_ok=True)
                temporary = cache.with_name(f".{cache.name}.part")
                temporary.write_bytes(memoryview(kernels.serialize()))
                temporary.replace(cache)

        return engine.create_execution_context(config), save

    def _vendor(self) -> Any:  # noqa: ANN401
        return vendor("tensorrt_rtx", "TensorRT-RTX", self.extra)


def _inspect(trt: Any, engine: Path, capability: tuple[int, int] | None = None) -> None:  # noqa: ANN401
    """Raise UnsupportedError with the remedy when the library finds the engine's header invalid.

    Where it was built, only the file counts: the machine may have no GPU (then even a good engine is INVALID, with no bit of
    diagnostics set), or one that no engine is for. Where it is opened, `capability` is the GPU's, and everything counts.
    """
    log = _tensorrt.messages(trt)
    log.kept.clear()
    runtime = trt.Runtime(log)
    with engine.open("rb") as file:
        validity, bits = runtime.get_engine_validity(file.read(runtime.engine_header_size))
    found = [name for name, bit in trt.EngineInvalidityDiagnostics.__members__.items() if int(bits) & int(bit)]
    if capability is None:
        found = [name for name in found if name in _FILE]
    if validity == trt.EngineValidity.INVALID and (found or capability is not None):
        remedies = {name: _REMEDIES.get(name, name) for name in found}
        if capability is not None and "UNSUPPORTED_CC" in found and not _has_engines(capability):
            remedies["UNSUPPORTED_CC"] = (
                f"TensorRT-RTX has no engines for compute capability {capability[0]}.{capability[1]}: run the bundle with the "
                "backend tensorrt, or with onnxruntime and its CUDAExecutionProvider"
            )
        told = "\n".join(f"  {remedy}" for remedy in remedies.values()) or log.last()
        raise UnsupportedError(f"{engine.name}: this engine cannot run here.\n{told}")


def _has_engines(capability: tuple[int, int]) -> bool:
    """Whether TensorRT-RTX has engines for such GPUs: Turing and newer, but for the datacentre's Hopper and Blackwell.

    Its own words on an H200, for every target that it built for: "Supported compute capabilities: 8.0 8.6 8.9 12.0 12.1 >12.0".
    """
    return (7, 5) <= capability < (9, 0) or capability >= (12, 0)

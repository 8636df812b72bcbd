"""TensorRT: engines for the GPU of the machine that builds them. It shares TensorRT-RTX's builder, with another vendor module."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field

from engines.backends import BackendOptions, Engine, _tensorrt, require_driver, vendor
from engines.backends._tensorrt_engine import DeviceEngine, capability
from engines.errors import UnsupportedError
from engines.signature import Signature

__all__ = ["Tensorrt"]


_CAPABILITY = re.compile(r"[1-9]\d*\.\d")


def _nothing() -> None:
    return None


def _capability(value: str) -> str:
    if _CAPABILITY.fullmatch(value) is None:
        raise ValueError(f"{value!r} is no compute capability; write such as '8.9' (Ada) or '9.0' (Hopper)")
    return value


def _number(capability: str) -> tuple[int, int]:
    major, minor = capability.split(".")
    return int(major), int(minor)


def _ordered(values: tuple[str, ...]) -> tuple[str, ...]:
    # One spelling for one set of GPUs, so that it is one key of the cache.
    return tuple(sorted(set(values), key=_number))


def _suffix(capability: str) -> str:
    """How files of engines end that are for one kind of GPU."""
    return f".sm{capability.replace('.', '')}.engine"


class Tensorrt(BackendOptions):
    """Options of TensorRT.

    `optimization_level` is the builder's effort, 0 to 5; 3 is its own default.

    `tf32` lets float32 matrix products round their operands to 10 bits of mantissa. TensorRT's default is on; here it is off,
    because a part that was asked for in fp32 was asked for to be exact, and fp16 is both faster and as coarse.

    `sparse_weights` lets it take kernels that skip zeros, for weights that the pass `sparsify` made zero, two in four.

    `version_compatible` embeds a lean runtime, so that newer releases of TensorRT load the engine; it may be slower.

    `hardware_compatible` widens the engine from the GPU that built it: to `same_compute_capability`, or to `ampere_plus`, which
    cannot hold FP8 or FP4.

    `compute_capabilities` names GPUs of which each builds an engine of its own, such as "8.0" (A100), "8.9" (L4, RTX 40) and
    "9.0" (H100): the bundle holds all, and each machine opens its own. They are built on a cluster that has such GPUs, by
    `t2iexport build --ray auto`. Empty means one engine, for the GPU of the machine that builds.
    """

    opset: ClassVar[int] = 20
    distributions: ClassVar[tuple[str, ...]] = ("tensorrt",)
    extra: ClassVar[str] = "tensorrt"
    modules: ClassVar[tuple[str, ...]] = ("tensorrt",)
    formats: ClassVar[Mapping[str, str]] = {
        "int8": "int8 arithmetic",
        "int8-smoothquant": "as int8",
        "int8-hybrid": "as int8 and int8-weights",
        "int8-weights": "stays packed in the engine",
        "int4-weights": "stays packed in the engine; compute capability 8.0 and newer",
        "fp8": "8.9 and newer",
    }

    optimization_level: int = Field(default=3, ge=0, le=5)
    tf32: bool = False
    sparse_weights: bool = False
    version_compatible: bool = False
    hardware_compatible: Literal["none", "same_compute_capability", "ampere_plus"] = "none"
    compute_capabilities: Annotated[tuple[Annotated[str, AfterValidator(_capability)], ...], AfterValidator(_ordered)] = ()

    @property
    def each(self) -> Mapping[str, Self]:
        """One for each GPU that is named."""
        return {gpu: self.model_copy(update={"compute_capabilities": (gpu,)}) for gpu in self.compute_capabilities}

    @property
    def here(self) -> Self:
        """For the GPU of this machine, whichever it is."""
        return self.model_copy(update={"compute_capabilities": ()})

    def refuse(self, precision: str) -> None:
        """Raise UnsupportedError when `hardware_compatible` promises GPUs without it; otherwise the GPU that builds decides."""
        oldest = _tensorrt.oldest(precision)
        if self.hardware_compatible == "ampere_plus" and oldest > (8, 0):
            raise UnsupportedError(
                f"{precision} needs compute capability {oldest[0]}.{oldest[1]}; hardware_compatible promises 8.0 (ampere_plus).\n"
                "  Set hardware_compatible: same_compute_capability, or use fp16."
            )

    @property
    def ignores_zeros(self) -> str:
        """It skips them where it is told to look for them."""
        return "" if self.sparse_weights else "it has kernels for 2:4, if its option sparse_weights is true"

    def computes(self, precision: str) -> str:
        """The graph's own precision; fp32 under `tf32` has the mantissa of fp16."""
        return "fp16" if self.tf32 and precision == "fp32" else precision

    def build(self, onnx: Path, signature: Signature, folder: Path) -> list[Path]:
        """Build `<stem of onnx>.engine` for this machine's GPU, or `<stem>.sm89.engine` where GPUs are named and it is one.

        Raises:
            MissingDependency: TensorRT, or where GPUs are named cuda-bindings, is not installed.
            UnsupportedError: no driver, or another GPU than those that are named, or TensorRT cannot build this graph, or the
                graph is not what the signature says.

        """
        trt = self._vendor()
        require_driver(
            "TensorRT builds for the GPU it finds; it",
            "Carry the bundle to the machine with the GPU and run: t2iexport rebuild BUNDLE.\n"
            "  The target tensorrt_rtx builds without one.",
        )
        found = self._found(onnx) if self.compute_capabilities else ""
        if found and found not in self.compute_capabilities:
            raise UnsupportedError(
                f"{onnx.name}: TensorRT builds for the GPU it finds, and finds compute capability {found}; "
                f"compute_capabilities names {', '.join(self.compute_capabilities)}.\n"
                f"  Build on a cluster that has such GPUs (--ray), or name {found}."
            )
        engine = _tensorrt.build(trt, onnx, signature, folder, lambda config: self._configure(trt, config))
        return [engine.rename(engine.with_name(f"{onnx.stem}{_suffix(found)}")) if found else engine]

    def open(self, files: Sequence[Path], signature: Signature) -> Engine:
        """Load an engine on this machine's GPU, of several the one that is for it.

        Raises:
            MissingDependency: TensorRT or cuda-bindings is not installed.
            UnsupportedError: no driver or GPU, or none is for this GPU, or TensorRT refuses the engine; quotes it.

        """
        trt = self._vendor()
        require_driver(
            f"Running the TensorRT engine {files[0].name}",
            "Copy the bundle to the machine with the GPU; here, run it with the backend onnxruntime.",
        )
        cuda = vendor("cuda.bindings.runtime", "cuda-bindings", self.extra)
        file = self._own(files) if self.compute_capabilities else files[0]
        return DeviceEngine(trt, cuda, file, signature, lambda engine: (engine.create_execution_context(), _nothing))

    def _own(self, files: Sequence[Path]) -> Path:
        """The file of several that is for this machine's GPU."""
        found = self._found(files[0])
        own = next((file for file in files if file.name.endswith(_suffix(found))), None)
        if own is None:
            raise UnsupportedError(
                f"{files[0].name}: engines are for compute capability {', '.join(self.compute_capabilities)}, and this "
                f"GPU has {found}.\n  Build them here: t2iexport rebuild BUNDLE, or build the bundle again with {found} named."
            )
        return own

    def _found(self, file: Path) -> str:
        """Compute capability of this machine's GPU."""
        cuda = vendor("cuda.bindings.runtime", "cuda-bindings", self.extra)
        return ".".join(map(str, capability(cuda, file)))

    def _vendor(self) -> Any:  # noqa: ANN401
        return vendor("tensorrt", "TensorRT", self.extra)

    def _configure(self, trt: Any, config: Any) -> None:  # noqa: ANN401
        config.builder_optimization_level = self.optimization_level
        (config.set_flag if self.tf32 else config.clear_flag)(trt.BuilderFlag.TF32)
        (config.set_flag if self.sparse_weights else config.clear_flag)(trt.BuilderFlag.SPARSE_WEIGHTS)
        if self.version_compatible:
            config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        if self.hardware_compatible != "none":
            config.hardware_compatibility_level = trt.HardwareCompatibilityLevel[self.hardware_compatible.upper()]

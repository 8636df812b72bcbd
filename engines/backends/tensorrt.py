"""TensorRT: engines for the GPU of the machine that builds them. It shares TensorRT-RTX's builder, with another vendor module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from engines.backends import BackendOptions, Engine, _tensorrt, require_driver, vendor
from engines.backends._tensorrt_engine import DeviceEngine
from engines.errors import UnsupportedError
from engines.signature import Signature

__all__ = ["Tensorrt"]


def _nothing() -> None:
    return None


class Tensorrt(BackendOptions):
    """Options of TensorRT.

    `optimization_level` is the builder's effort, 0 to 5; 3 is its own default.

    `tf32` lets float32 matrix products round their operands to 10 bits of mantissa. TensorRT's default is on; here it is off,
    because a part that was asked for in fp32 was asked for to be exact, and fp16 is both faster and as coarse.

    `sparse_weights` lets it take kernels that skip zeros, for weights that the pass `sparsify` made zero, two in four.

    `version_compatible` embeds a lean runtime, so that newer releases of TensorRT load the engine; it may be slower.

    `hardware_compatible` widens the engine from the GPU that built it: to `same_compute_capability`, or to `ampere_plus`, which
    cannot hold FP8 or FP4.
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
        """Build `<stem of onnx>.engine` for this machine's GPU.

        Raises:
            MissingDependency: TensorRT is not installed.
            UnsupportedError: no driver, TensorRT cannot build this graph, or the graph is not what the signature says.

        """
        trt = self._vendor()
        require_driver(
            "TensorRT builds for the GPU it finds; it",
            "Carry the bundle to the machine with the GPU and run: t2iexport rebuild BUNDLE.\n"
            "  The target tensorrt_rtx builds without one.",
        )
        return [_tensorrt.build(trt, onnx, signature, folder, lambda config: self._configure(trt, config))]

    def open(self, files: Sequence[Path], signature: Signature) -> Engine:
        """Load an engine on this machine's GPU.

        Raises:
            MissingDependency: TensorRT or cuda-bindings is not installed.
            UnsupportedError: no driver or GPU, or TensorRT refuses the engine; quotes it.

        """
        trt = self._vendor()
        require_driver(
            f"Running the TensorRT engine {files[0].name}",
            "Copy the bundle to the machine with the GPU; here, run it with the backend onnxruntime.",
        )
        cuda = vendor("cuda.bindings.runtime", "cuda-bindings", self.extra)
        return DeviceEngine(trt, cuda, files[0], signature, lambda engine: (engine.create_execution_context(), _nothing))

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

"""ONNX Runtime: runs the ONNX file itself, on any machine."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import re
import threading
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from engines.backends import BackendOptions, OperatorRun, half, has_driver, require_driver, vendor
from engines.backends._device_tensors import Bound
from engines.errors import MissingDependency, UnsupportedError
from engines.signature import Signature

__all__ = ["OnnxRuntime"]
#: Module, library and extra.
_NAMES = ("onnxruntime",) * 3
_TYPES = {"float32": "tensor(float)", "int64": "tensor(int64)"}
_LIBRARIES = "Install an NVIDIA driver, and CUDA and cuDNN with: pip install 'onnxruntime-gpu[cuda,cudnn]'"
#: Providers whose tensors stay on an NVIDIA GPU between calls.
_NVIDIA = ("CUDAExecutionProvider", "TensorrtExecutionProvider")


class OnnxRuntime(BackendOptions):
    """Runs ONNX on the processor, or wherever an execution provider does.

    Attributes:
        providers: execution providers, the preferred first.
        threads: of one operator; 0 takes every core.
        spinning: let idle threads spin. Small models run two to three times slower with it.
        graph_optimization: how far the library may rewrite the graph.
        fused_attention: one operator of this library for attention, on the processor too; no other library reads such a graph.
        device: number of the device, of providers that have several; the processor is one.
        tf32: on CUDA, let float32 products round their operands to 10 bits of mantissa, as the library does by itself.
        nhwc: on CUDA, convolve with channels last, and group norms are one operator; quicker, where its kernel takes the network.
        search: on CUDA, how cuDNN's algorithm of a convolution is chosen: by a rule, by trying all, or always the same one.
        cuda_graph: on CUDA, capture the whole run once per size and replay it. Every operator must run on the GPU.
        provider_options: further options of a provider, as the library's documentation names them.

    """

    opset: ClassVar[int] = 20
    distributions: ClassVar[tuple[str, ...]] = ("onnxruntime-gpu", "onnxruntime")
    extra: ClassVar[str] = "onnxruntime"
    modules: ClassVar[tuple[str, ...]] = ("onnxruntime",)
    formats: ClassVar[Mapping[str, str]] = {
        "int8": "int8 arithmetic (VNNI); of convolutions only where their outputs are quantized too",
        "int8-smoothquant": "as int8",
        "int8-hybrid": "as int8 and int8-weights",
        "int8-weights": "MatMulNBits, which rounds inputs to 8 bits too; convolutions unpacked at every call",
        "int4-weights": "MatMulNBits, which rounds inputs to 8 bits; convolutions unpacked at every call",
    }
    refused_formats: ClassVar[Mapping[str, str]] = {
        "fp8": "its processor kernels have no fp8 arithmetic, and its fusion of fp8 products fails to load",
    }
    runs_onnx: ClassVar[bool] = True
    carriers: ClassVar[frozenset[str]] = BackendOptions.carriers | {"Reorder"}

    providers: tuple[str, ...] = Field(default=("CPUExecutionProvider",), min_length=1)
    threads: int = Field(default=0, ge=0, le=1024)
    spinning: bool = False
    graph_optimization: Literal["none", "basic", "extended", "all"] = "all"
    fused_attention: bool = False
    device: int = Field(default=0, ge=0, le=1024)
    tf32: bool = False
    nhwc: bool = False
    search: Literal["heuristic", "exhaustive", "default"] = "heuristic"
    cuda_graph: bool = False
    provider_options: dict[str, dict[str, str]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _named(self) -> Self:
        if surplus := sorted(set(self.provider_options) - set(self.providers)):
            raise ValueError(f"provider_options names {surplus[0]}, and providers are {', '.join(self.providers)}")
        return self

    @property
    def version(self) -> str:
        """Version of the library that is imported, read off its files.

        Two packages of other versions may share its folder, `onnxruntime` and `onnxruntime-gpu`; the last one installed wrote it.
        """
        spec = importlib.util.find_spec("onnxruntime")
        if spec is None:
            raise MissingDependency(*_NAMES[1:])
        for folder in spec.submodule_search_locations or []:
            told = Path(folder) / "capi" / "build_and_package_info.py"
            if told.is_file() and (found := re.search(r"^__version__ = ['\"](.+)['\"]", told.read_text("utf-8"), re.MULTILINE)):
                return found[1]
        raise half(*_NAMES)

    def refuse(self, precision: str) -> None:
        """Raise UnsupportedError for bf16, fp8 and fp4 on the processor, for which the library has no kernels."""
        if precision in {"bf16", "fp8", "fp4"} and self.providers[0] == "CPUExecutionProvider":
            raise UnsupportedError(f"onnxruntime has no {precision} kernels on CPUExecutionProvider. Use precision fp32 or fp16.")

    @property
    def runs_on_cpu(self) -> bool:
        """Whether the processor is the only provider."""
        return self.providers == ("CPUExecutionProvider",)

    @property
    def fused(self) -> tuple[str, ...]:
        """On CUDA attention is one operator, whose score matrix is never written to memory; with `nhwc` so are group norms."""
        if self.providers[0] != "CUDAExecutionProvider":
            return ("attend",) if self.fused_attention else ()
        return ("attend", "group_norm") if self.nhwc else ("attend",)

    @property
    def quantized_outputs(self) -> bool:
        """Its int8 convolution on the processor writes int8."""
        return self.runs_on_cpu

    @property
    def ignores_zeros(self) -> str:
        """It has no such kernels."""
        return "ONNX Runtime has no kernels that skip zeros"

    def computes(self, precision: str) -> str:
        """The graph's own precision; fp32 under `tf32` has the mantissa of fp16."""
        return "fp16" if self.tf32 and precision == "fp32" and not self.runs_on_cpu else precision

    def build(self, onnx: Path, signature: Signature, folder: Path) -> Sequence[Path]:  # noqa: ARG002 - the protocol's
        """Return the graph and, where there is one, its external data `<graph>.data`; load it once to know that it runs.

        For an NVIDIA GPU that this machine has not, whoever opens it is the first to know.

        Raises:
            UnsupportedError: the library cannot load it, or it is not what the signature says, or is open and shall be captured.
            MissingDependency: the library is not installed.

        """
        files = [file for file in (onnx, onnx.with_name(f"{onnx.name}.data")) if file.exists()]
        if self.cuda_graph and (free := [name for name, dim in signature.dims.items() if dim.min != dim.max]):
            raise UnsupportedError(f"cuda_graph wants one size, and {free[0]} is open. Fix it in shapes, or drop cuda_graph.")
        if set(_NVIDIA) & set(self.providers) and not has_driver():
            return files
        with self.open(files, signature):
            return files

    def open(self, files: Sequence[Path], signature: Signature, options: Any = None) -> _Session:  # noqa: ANN401
        """Load the graph `files[0]`, in a session of the library's own defaults or with `options`.

        Raises:
            UnsupportedError: the library cannot, or would run it elsewhere than asked, or it is not what the signature says.
            MissingDependency: the library is not installed.

        """
        library = vendor(*_NAMES)
        if nvidia := [name for name in self.providers if name in _NVIDIA]:
            require_driver(f"onnxruntime's {nvidia[0]}", f"{_LIBRARIES}, or name another provider.")
            with contextlib.redirect_stdout(io.StringIO()):  # what it misses is said better below
                library.preload_dlls()  # CUDA and cuDNN from NVIDIA's packages, where they are installed
        have = library.get_available_providers()
        if missing := [name for name in self.providers if name not in have]:
            raise UnsupportedError(
                f"onnxruntime has no {missing[0]} here. Choose among its providers: {', '.join(have)}.{_twice()}"
            )
        options = options or library.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 3  # errors; they are raised as well
        level = {"none": "DISABLE_ALL"}.get(self.graph_optimization, f"ENABLE_{self.graph_optimization.upper()}")
        options.graph_optimization_level = getattr(library.GraphOptimizationLevel, f"ORT_{level}")
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(self.spinning)))
        try:
            session = library.InferenceSession(files[0], options, providers=self._chosen())
        except Exception as error:  # the library's errors share no narrower root
            raise UnsupportedError(f"onnxruntime cannot load {files[0]}: {error}") from error
        if session.get_providers()[0] != self.providers[0]:
            raise UnsupportedError(
                f"onnxruntime cannot start {self.providers[0]} and would run {files[0].name} on {session.get_providers()[0]}. "
                f"{_LIBRARIES if nvidia else 'Install the libraries of the provider'}, or name that provider."
            )
        bound = Bound(library, session, signature, ("cuda", self.device), graphs=self.cuda_graph) if nvidia else None
        return _Session(session, signature, files[0], bound, turns=not self.runs_on_cpu)

    def profile(self, files: Sequence[Path], signature: Signature, inputs: Mapping[str, np.ndarray]) -> list[OperatorRun]:
        """Every step of one call, as they were executed; instead of a kernel, the provider that ran it."""
        options = vendor(*_NAMES).SessionOptions()
        with TemporaryDirectory() as folder:
            options.enable_profiling, options.profile_file_prefix = True, f"{folder}/run"
            with self.open(files, signature, options) as engine:
                engine(inputs)  # which fills caches
                engine(inputs)
                told = json.loads(Path(engine.session.end_profiling()).read_text(encoding="utf-8"))
        ran = [each for each in told if each.get("cat") == "Node" and each["name"].endswith("_kernel_time")]
        return [
            OperatorRun(
                each["args"]["op_name"],
                "int8" if "int8" in str(each["args"].get("input_type_shape")) else "float",
                each["dur"] / 1e6,
                each["args"].get("provider", "").removesuffix("ExecutionProvider"),
            )
            for each in ran[len(ran) // 2 :]
        ]

    def _chosen(self) -> list[str | tuple[str, dict[str, str]]]:
        """The providers, with their options and, where it is not the first, the device."""
        chosen: list[str | tuple[str, dict[str, str]]] = []
        for name in self.providers:
            told = {"device_id": str(self.device)} if self.device and name != "CPUExecutionProvider" else {}
            if name == "CUDAExecutionProvider":
                told |= {"use_tf32": str(int(self.tf32)), "cudnn_conv_algo_search": self.search.upper()}
                told |= {"prefer_nhwc": str(int(self.nhwc)), "enable_cuda_graph": str(int(self.cuda_graph))}
            told |= self.provider_options.get(name, {})
            chosen.append((name, told) if told else name)
        return chosen


def _twice() -> str:
    """What to do where both packages are installed, of which one has fewer providers."""
    both = ("onnxruntime", "onnxruntime-gpu")
    if not set(both) <= set(metadata.packages_distributions().get("onnxruntime", [])):
        return ""
    return (
        f"\n  {' and '.join(both)} are both installed and share one folder, which the later one wrote. Keep the one you want:\n"
        f"  pip uninstall {' '.join(both)}, then pip install onnxruntime-gpu"
    )


class _Session:
    """An engine: one loaded graph.

    On the processor the library runs a session for several threads at once. With `turns` they take turns: bound tensors belong to
    one call, and other providers promise no more.
    """

    def __init__(self, session: Any, signature: Signature, file: Path, bound: Bound | None, *, turns: bool) -> None:  # noqa: ANN401
        self.session: Any = session
        self._turn = threading.Lock() if turns else contextlib.nullcontext()
        self._signature, self._file, self._bound = signature, file, bound
        for side, ports in ((session.get_inputs(), signature.inputs), (session.get_outputs(), signature.outputs)):
            found = sorted((node.name, node.type) for node in side)
            wanted = sorted((port.name, _TYPES[port.dtype]) for port in ports)
            if found != wanted:
                raise UnsupportedError(f"{file} has the ports {found}; its signature says {wanted}. Build the bundle again.")

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        session, bound = self.session, self._bound  # another thread may close it meanwhile
        if session is None:
            raise RuntimeError(f"{self._file.name} was closed")
        inputs = self._signature.filled(inputs)
        sizes = self._signature.sizes(inputs)
        names = [port.name for port in self._signature.outputs]
        try:
            with self._turn:
                if bound:
                    return bound(inputs, sizes)
                arrays = session.run(names, {name: np.ascontiguousarray(array) for name, array in inputs.items()})
        except Exception as error:  # the library's errors share no narrower root
            raise UnsupportedError(f"onnxruntime failed in {self._file.name}: {error}") from error
        return dict(zip(names, arrays, strict=True))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.session = self._bound = None

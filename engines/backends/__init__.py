"""One engine backend per file. A backend's options are its constructor; a vendor library is imported in exactly one file."""

from __future__ import annotations

import ctypes
import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self

import numpy as np

from engines.errors import MissingDependency, UnsupportedError
from engines.signature import Signature
from engines.strict import Frozen

DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


def installed(extra: str, *distributions: str) -> str:
    """Version of a library, under whichever of its names it is installed; raise MissingDependency when it is not."""
    from importlib import metadata  # noqa: PLC0415 - what a bundle needs is imported before, in a third less time

    for name in distributions:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    raise MissingDependency(distributions[0], extra)


def vendor(module: str, library: str, extra: str) -> Any:  # noqa: ANN401 - vendors ship no types
    """Import a vendor's module on demand, so that options can be validated where it is not installed.

    Raises:
        MissingDependency: it is not installed, or only a part of it is.

    """
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if f"{module}.".startswith(f"{error.name}."):
            raise MissingDependency(library, extra) from error
        if str(error.name).startswith(f"{module.partition('.')[0]}."):
            raise half(module, library, extra) from error
        raise  # something else missing inside an installed library is that library's error
    if getattr(found, "__file__", None) is None:  # a folder without the file that makes it a module
        raise half(module, library, extra)
    return found


def half(module: str, library: str, extra: str) -> MissingDependency:
    """Say that files of an installed library are gone, and what to install again."""
    from importlib import metadata  # noqa: PLC0415 - as above

    names = metadata.packages_distributions().get(module.partition(".")[0], [])
    again = " ".join(sorted(set(names))) or f"'t2iexport[{extra}]'"
    text = f"{library} is half there: some of its files are gone, as when a package that shares them is removed.\n"
    return MissingDependency(library, extra, f"{text}  pip install --force-reinstall --no-deps {again}")


def has_driver() -> bool:
    """Whether this machine has an NVIDIA driver. Starts nothing on the GPU."""
    try:
        return bool(ctypes.CDLL(DRIVER))
    except OSError:
        return False


def require_driver(purpose: str, remedy: str) -> None:
    """Raise UnsupportedError when this machine has no NVIDIA driver."""
    if not has_driver():
        raise UnsupportedError(
            f"{purpose} needs an NVIDIA GPU, and this machine has no NVIDIA driver ({DRIVER} is not found).\n  {remedy}"
        )


class OperatorRun(NamedTuple):
    """One step of a network's call, as a library fused and ran it.

    Attributes:
        operator: by the library's name.
        numbers: what it computed with.
        seconds: it took.
        kernel: what ran, by the library's name, which may tell the processor's instructions; else where it ran; empty where the
            library tells neither.

    """

    operator: str
    numbers: Literal["int8", "float"]
    seconds: float
    kernel: str = ""


class Engine(Protocol):
    """A network that is ready to run: named arrays in, named arrays out."""

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once, for as many threads at once as call it. Outputs are the caller's: the engine never writes to them again."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None:
        """Release the engine's memory; calling it afterwards is an error."""
        ...


class Backend(Protocol):
    """Builds engines from ONNX, and opens them. Instances are frozen options. All that others ask of it is said here.

    Attributes:
        opset: the newest ONNX operator set that the vendor's importer maps well.
        distributions: names under which the library is installed, the one to install first; engines depend on its version.
        extra: of t2iexport, that installs it; empty for a backend of another package.
        modules: the vendor's, which nothing but this file imports.
        formats: format of quantization → what the library makes of it, as measured.
        refused_formats: format of quantization → why the library does not take it. Of a format that stands in neither, `refuse`
            decides alone.
        runs_onnx: whether `build` returns the ONNX file itself, so that an engine takes no room of its own.
        carriers: operators, by the library's names, that take whole numbers without computing with them.

    """

    opset: ClassVar[int]
    distributions: ClassVar[tuple[str, ...]]
    extra: ClassVar[str]
    modules: ClassVar[tuple[str, ...]]
    formats: ClassVar[Mapping[str, str]]
    refused_formats: ClassVar[Mapping[str, str]]
    runs_onnx: ClassVar[bool]
    carriers: ClassVar[frozenset[str]]

    @property
    def version(self) -> str:
        """Version of the installed library; MissingDependency when it is absent. Imports nothing."""
        ...

    def refuse(self, precision: str) -> None:
        """Raise UnsupportedError when no engine of this precision can exist for the chosen target. Spends no time."""
        ...

    @property
    def runs_on_cpu(self) -> bool:
        """Whether engines run on the processor, where a half-precision graph saves no time."""
        ...

    @property
    def each(self) -> Mapping[str, Self]:
        """Compute capability → the same options for that GPU alone, where such a GPU must build its own engine.

        Empty where one engine is built, by any machine or for the one that builds. Files of engines that belong together have
        different names, and `open` is given all of them.
        """
        ...

    @property
    def here(self) -> Self:
        """The options with which an engine is built again on a machine that is not to build for others."""
        ...

    @property
    def fused(self) -> tuple[str, ...]:
        """Graph passes into operators that this library has and others lack, for graphs of its own, in their order."""
        ...

    @property
    def quantized_outputs(self) -> bool:
        """Whether its int8 convolutions write int8, so that their outputs are to be quantized too."""
        ...

    @property
    def ignores_zeros(self) -> str:
        """Why engines gain nothing from weights of which two in four are zero; empty where kernels skip those."""
        ...

    def computes(self, precision: str) -> str:
        """Precision class (fp32, fp16 or bf16) of what an engine answers on this machine, given the class of its graph.

        The graph's own, or a coarser one where the library computes so inside; the limits of a check are chosen by it.
        """
        ...

    def model_dump(self, *, mode: str = "python") -> dict[str, Any]:
        """Give the options by name; with mode "json", as JSON holds them."""
        ...

    def build(self, onnx: Path, signature: Signature, folder: Path) -> Sequence[Path]:
        """Build one part's engine from `onnx` into `folder`; the files that `open` needs, the first one first.

        A backend that runs the ONNX file itself returns it and its external data, and writes nothing.
        """
        ...

    def open(self, files: Sequence[Path], signature: Signature) -> Engine:
        """Load what `build` returned, in that order or by name."""
        ...

    def profile(self, files: Sequence[Path], signature: Signature, inputs: Mapping[str, np.ndarray]) -> list[OperatorRun]:
        """Every step of one call, behind one that is not counted; nothing where the library cannot tell."""
        ...


class BackendOptions(Frozen):
    """What a backend says of itself unless it says otherwise: `opset`, `distributions`, `build` and `open` are left to it."""

    distributions: ClassVar[tuple[str, ...]]
    extra: ClassVar[str] = ""
    modules: ClassVar[tuple[str, ...]] = ()
    formats: ClassVar[Mapping[str, str]] = {}
    refused_formats: ClassVar[Mapping[str, str]] = {}
    runs_onnx: ClassVar[bool] = False
    carriers: ClassVar[frozenset[str]] = frozenset({"QuantizeLinear", "DequantizeLinear", "Transpose", "Reshape"})

    @property
    def version(self) -> str:
        """Version of the library."""
        return installed(self.extra, *self.distributions)

    def refuse(self, precision: str) -> None:
        """Any precision can be; what cannot, `build` says."""

    @property
    def runs_on_cpu(self) -> bool:
        """It runs on a GPU."""
        return False

    @property
    def each(self) -> Mapping[str, Self]:
        """One engine is built."""
        return {}

    @property
    def here(self) -> Self:
        """The same."""
        return self

    @property
    def fused(self) -> tuple[str, ...]:
        """Its graphs are anybody's."""
        return ()

    @property
    def quantized_outputs(self) -> bool:
        """They write floats."""
        return False

    @property
    def ignores_zeros(self) -> str:
        """No kernel is known that does."""
        return "nothing says that its kernels skip zeros"

    def computes(self, precision: str) -> str:
        """The graph's own precision."""
        return precision

    def profile(self, files: Sequence[Path], signature: Signature, inputs: Mapping[str, np.ndarray]) -> list[OperatorRun]:  # noqa: ARG002 - the protocol's
        """It cannot tell."""
        return []

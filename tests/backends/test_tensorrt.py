"""TensorRT: exercised as far as a machine without it allows, with TensorRT-RTX's module in its place."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from engines import backends
from engines.backends import tensorrt
from engines.backends.tensorrt import Tensorrt
from engines.errors import MissingDependency, UnsupportedError
from tests.backends.small_graph import SIGNATURE

rtx = pytest.importorskip("tensorrt_rtx")


def test_builds_with_the_vendor_module_that_it_is_given(graphs, tmp_path, monkeypatch):
    monkeypatch.setattr(tensorrt, "vendor", lambda *_: rtx)
    monkeypatch.setattr(tensorrt, "require_driver", lambda *_: None)
    (engine,) = Tensorrt().build(graphs(20), SIGNATURE, tmp_path)
    assert list(tmp_path.iterdir()) == [engine]
    assert engine.stat().st_size > 1000


def test_without_a_driver_says_where_to_build(graphs, tmp_path, monkeypatch):
    monkeypatch.setattr(tensorrt, "vendor", lambda *_: rtx)
    monkeypatch.setattr(backends, "DRIVER", "no_such_driver.so")
    with pytest.raises(UnsupportedError, match=r"no NVIDIA driver(.|\n)*rebuild(.|\n)*tensorrt_rtx"):
        Tensorrt().build(graphs(20), SIGNATURE, tmp_path)
    with pytest.raises(UnsupportedError, match=r"part\.engine needs an NVIDIA GPU(.|\n)*onnxruntime"):
        Tensorrt().open([tmp_path / "part.engine"], SIGNATURE)


def test_an_error_inside_an_installed_library_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "broken_library.py").write_text("import no_such_module_anywhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_module_anywhere"):
        backends.vendor("broken_library", "Broken", "tensorrt")
    with pytest.raises(MissingDependency, match=r"t2iexport\[tensorrt\]"):
        backends.vendor("no_such_module_anywhere.runtime", "Missing", "tensorrt")


class Config:
    """Keeps what is set on it."""

    def __init__(self):
        self.flags = {"TF32"}

    def set_flag(self, flag):
        self.flags.add(flag)

    def clear_flag(self, flag):
        self.flags.discard(flag)


def test_options_reach_the_builder():
    vendor = SimpleNamespace(
        BuilderFlag=SimpleNamespace(TF32="TF32", VERSION_COMPATIBLE="VC", SPARSE_WEIGHTS="SPARSE"),
        HardwareCompatibilityLevel={"AMPERE_PLUS": 1},
    )
    Tensorrt()._configure(vendor, plain := Config())
    assert (plain.flags, plain.builder_optimization_level) == (set(), 3)
    options = Tensorrt(tf32=True, version_compatible=True, hardware_compatible="ampere_plus", optimization_level=5)
    options._configure(vendor, full := Config())
    Tensorrt(sparse_weights=True)._configure(vendor, sparse := Config())
    assert sparse.flags == {"SPARSE"}
    assert (full.flags, full.builder_optimization_level, full.hardware_compatibility_level) == ({"TF32", "VC"}, 5, 1)


def test_ampere_plus_has_no_fp8():
    Tensorrt().refuse("fp8")
    for precision in ("fp8", "fp4"):
        with pytest.raises(UnsupportedError, match="same_compute_capability"):
            Tensorrt(hardware_compatible="ampere_plus").refuse(precision)
    Tensorrt(hardware_compatible="ampere_plus").refuse("bf16")


class Cuda:
    """CUDA with one GPU."""

    cudaError_t = SimpleNamespace(cudaSuccess=0)  # noqa: N815 - CUDA's name
    cudaDeviceAttr = SimpleNamespace(  # noqa: N815 - CUDA's name
        cudaDevAttrComputeCapabilityMajor=0, cudaDevAttrComputeCapabilityMinor=1
    )

    def __init__(self, *capability):
        self.capability = capability

    def cudaGetDevice(self):  # noqa: N802
        return 0, 0

    def cudaDeviceGetAttribute(self, attribute, _device):  # noqa: N802
        return 0, self.capability[attribute]


@pytest.fixture
def gpu(monkeypatch):
    """A machine whose GPU has a compute capability."""

    def have(*capability):
        libraries = {"tensorrt": rtx, "cuda.bindings.runtime": Cuda(*capability)}
        monkeypatch.setattr(tensorrt, "vendor", lambda module, *_: libraries[module])
        monkeypatch.setattr(tensorrt, "require_driver", lambda *_: None)

    return have


def test_engines_for_gpus_by_name_have_names_of_their_own(graphs, tmp_path, gpu):
    both = Tensorrt(compute_capabilities=["12.0", "8.9", "8.9"])
    assert both.compute_capabilities == ("8.9", "12.0")
    assert {gpu: each.compute_capabilities for gpu, each in both.each.items()} == {"8.9": ("8.9",), "12.0": ("12.0",)}
    assert (both.here, Tensorrt().each) == (Tensorrt(), {})
    gpu(12, 0)
    (engine,) = both.each["12.0"].build(graphs(20), SIGNATURE, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [engine.name] == ["part.sm120.engine"]
    with pytest.raises(UnsupportedError, match=r"finds compute capability 12\.0; compute_capabilities names 8\.9\.\n.*--ray"):
        both.each["8.9"].build(graphs(20), SIGNATURE, tmp_path)


def test_each_gpu_opens_its_own(tmp_path, gpu, monkeypatch):
    opened, files = [], [tmp_path / f"part.sm{number}.engine" for number in ("120", "89")]
    monkeypatch.setattr(tensorrt, "DeviceEngine", lambda _trt, _cuda, file, *_: opened.append(file.name))
    for capability in ((8, 9), (12, 0)):
        gpu(*capability)
        Tensorrt(compute_capabilities=["8.9", "12.0"]).open(files, SIGNATURE)
        Tensorrt().open([tmp_path / "part.engine"], SIGNATURE)
    assert opened == ["part.sm89.engine", "part.engine", "part.sm120.engine", "part.engine"]
    gpu(9, 0)
    with pytest.raises(UnsupportedError, match=r"for compute capability 8\.9, 12\.0, and this GPU has 9\.0\.\n.*rebuild BUNDLE"):
        Tensorrt(compute_capabilities=["8.9", "12.0"]).open(files, SIGNATURE)


@pytest.mark.parametrize("wrong", ["89", "sm_89", "8.90", "H100", "0.9"])
def test_what_is_no_compute_capability_is_refused(wrong):
    with pytest.raises(ValueError, match=r"write such as '8\.9'"):
        Tensorrt(compute_capabilities=[wrong])

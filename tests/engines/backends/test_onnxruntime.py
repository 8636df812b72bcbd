import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from engines.errors import UnsupportedError
from engines.signature import Port, Signature
from tests.engines.backends import scaled
from tests.engines.backends.scaled import SIGNATURE, arrays

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

from pydantic import ValidationError  # noqa: E402

from engines import backends, plugins  # noqa: E402
from engines.backends import onnxruntime as module  # noqa: E402
from engines.backends.onnxruntime import OnnxRuntime  # noqa: E402

ROOT = Path(__file__).parents[3]


@pytest.fixture(params=["inside", "external"])
def graph(tmp_path, request):
    """The graph with its weights inside, and beside it."""
    return scaled.write(tmp_path / "part.onnx", external=request.param == "external")


def test_build_returns_the_graph_itself_and_writes_nothing(graph, tmp_path):
    before = sorted(tmp_path.iterdir())
    assert sorted(OnnxRuntime().build(graph, SIGNATURE, tmp_path / "engines")) == before
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("options", [{}, {"threads": 1, "spinning": True}, {"graph_optimization": "none"}])
def test_an_engine_computes(graph, tmp_path, options):
    backend = OnnxRuntime(**options)
    given = arrays()
    with backend.open(backend.build(graph, SIGNATURE, tmp_path), SIGNATURE) as engine:
        first = engine(given)
        kept = first["y"].copy()
        engine(arrays(1, 8))
        np.testing.assert_array_equal(first["y"], kept)
        strided = engine({"x": np.asfortranarray(given["x"]), "ids": given["ids"]})
    np.testing.assert_allclose(kept, given["x"] * 3 + given["ids"][:, None], rtol=1e-6)
    np.testing.assert_array_equal(strided["y"], kept)
    with pytest.raises(RuntimeError, match="closed"):
        engine(given)


def test_inputs_are_held_to_the_signature(graph):
    with OnnxRuntime().open([graph], SIGNATURE) as engine:
        for change in ({"x": np.zeros((3, 4), np.float32)}, {"x": np.zeros((2, 4))}, {"other": np.zeros(1)}):
            with pytest.raises(UnsupportedError):
                engine({**arrays(), **change})


def test_a_graph_with_other_ports_is_refused(graph):
    other = SIGNATURE.model_copy(update={"outputs": (Port(name="z", shape=("batch",)),)})
    with pytest.raises(UnsupportedError, match=r"ports .*'y'.*; its signature says .*'z'"):
        OnnxRuntime().open([graph], other)


def test_a_vendor_s_error_carries_the_file(graph):
    graph.write_bytes(b"no graph")
    with pytest.raises(UnsupportedError, match=r"part\.onnx") as caught:
        OnnxRuntime().open([graph], SIGNATURE)
    assert caught.value.__cause__ is not None


def test_weights_outside_the_folder_are_not_read(tmp_path):
    helper, kind = onnx.helper, onnx.TensorProto
    weight = onnx.numpy_helper.from_array(np.full((64, 64), 3, np.float32), "w")
    x, y = (helper.make_tensor_value_info(name, kind.FLOAT, [64, 64]) for name in "xy")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "part.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path, save_as_external_data=True, location="scrt000.dat", size_threshold=0)
    (tmp_path / "in" / "scrt000.dat").rename(tmp_path / "scrt000.dat")
    path.write_bytes(path.read_bytes().replace(b"scrt000.dat", b"../scrt.dat"))
    (tmp_path / "scrt000.dat").rename(tmp_path / "scrt.dat")
    ports = [(Port(name=name, shape=(64, 64)),) for name in "xy"]
    with pytest.raises(UnsupportedError, match="scrt"):
        OnnxRuntime().open([path], Signature(inputs=ports[0], outputs=ports[1], dims={}))


def test_an_error_while_running_carries_the_file(graph):
    wide = SIGNATURE.model_copy(update={"inputs": (Port(name="x", shape=("batch", "width", 1)), SIGNATURE.inputs[1])})
    with OnnxRuntime().open([graph], wide) as engine, pytest.raises(UnsupportedError, match=r"failed in part\.onnx"):
        engine({**arrays(), "x": np.zeros((2, 4, 1), np.float32)})


def test_a_provider_that_is_not_there(graph):
    with pytest.raises(UnsupportedError, match=r"no NoSuchProvider here. Choose .*CPUExecutionProvider"):
        OnnxRuntime(providers=["NoSuchProvider"]).open([graph], SIGNATURE)


CUDA = ("CUDAExecutionProvider", "CPUExecutionProvider")


def test_another_device_is_asked_of_providers_that_have_several():
    assert OnnxRuntime(providers=("DmlExecutionProvider",))._chosen() == ["DmlExecutionProvider"]
    chosen = OnnxRuntime(providers=("DmlExecutionProvider", "CPUExecutionProvider"), device=2)._chosen()
    assert chosen == [("DmlExecutionProvider", {"device_id": "2"}), "CPUExecutionProvider"]


def test_cuda_computes_exactly_unless_asked_otherwise():
    told = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC", "prefer_nhwc": "0", "enable_cuda_graph": "0"}
    assert OnnxRuntime(providers=CUDA)._chosen() == [("CUDAExecutionProvider", told), "CPUExecutionProvider"]
    wishes = {"tf32": True, "nhwc": True, "search": "exhaustive", "cuda_graph": True, "device": 1}
    more = {"CUDAExecutionProvider": {"arena_extend_strategy": "kSameAsRequested", "device_id": "3"}}
    ((_, asked), _) = OnnxRuntime(providers=CUDA, provider_options=more, **wishes)._chosen()
    told = {"use_tf32": "1", "cudnn_conv_algo_search": "EXHAUSTIVE", "prefer_nhwc": "1", "enable_cuda_graph": "1"}
    assert asked == {**told, "arena_extend_strategy": "kSameAsRequested", "device_id": "3"}
    assert OnnxRuntime(providers=CUDA, tf32=True).computes("fp32") == "fp16"
    assert OnnxRuntime(tf32=True).computes("fp32") == "fp32"


def test_options_of_a_provider_that_is_not_named():
    with pytest.raises(ValidationError, match=r"names CUDAExecutionProvider, and providers are CPUExecutionProvider"):
        OnnxRuntime(provider_options={"CUDAExecutionProvider": {"device_id": "0"}})


def test_it_is_built_for_a_gpu_that_this_machine_has_not(graph, tmp_path, monkeypatch):
    monkeypatch.setattr(backends, "DRIVER", "no_such_driver.so")
    backend = OnnxRuntime(providers=CUDA, nhwc=True)
    files = backend.build(graph, SIGNATURE, tmp_path)
    assert files[0] == graph
    with pytest.raises(UnsupportedError, match=r"CUDAExecutionProvider needs an NVIDIA GPU(.|\n)*onnxruntime-gpu\[cuda"):
        backend.open(files, SIGNATURE)


def test_only_one_size_can_be_captured(graph, tmp_path):
    backend = OnnxRuntime(providers=CUDA, cuda_graph=True)
    with pytest.raises(UnsupportedError, match=r"cuda_graph wants one size, and batch is open.*shapes"):
        backend.build(graph, SIGNATURE, tmp_path)


@pytest.mark.filterwarnings("ignore:.*CUDAExecutionProvider.*")
def test_a_provider_that_cannot_start_here_is_named(graph, monkeypatch):
    import onnxruntime

    if CUDA[0] not in onnxruntime.get_available_providers() or Path("/dev/nvidia0").exists():
        pytest.skip("needs onnxruntime-gpu on a machine without a GPU")
    monkeypatch.setattr(module, "require_driver", lambda *_: None)  # a driver without CUDA's libraries
    with pytest.raises(UnsupportedError, match=r"cannot start CUDAExecutionProvider and would run .* CPU.*onnxruntime-gpu\[cuda"):
        OnnxRuntime(providers=CUDA).open([graph], SIGNATURE)


def test_half_precision():
    OnnxRuntime().refuse("fp16")
    with pytest.raises(UnsupportedError, match="bf16"):
        OnnxRuntime().refuse("bf16")


def test_the_version_is_the_library_s():
    import onnxruntime

    assert OnnxRuntime().version == onnxruntime.__version__
    assert plugins.load("backends", "onnxruntime") is OnnxRuntime


#: Runs with an onnxruntime of its own: what is found in the first folder named.
OTHER = """
import sys
from importlib.machinery import PathFinder
from pathlib import Path
class First:
    def find_spec(self, name, path=None, target=None):
        return PathFinder.find_spec(name, [sys.argv[1]] if path is None else path) if name.startswith("onnxruntime") else None
sys.meta_path.insert(0, First())
sys.path.insert(0, sys.argv[1])
from engines.backends.onnxruntime import OnnxRuntime
from engines.errors import T2IError
for attempt in (lambda: OnnxRuntime().version, lambda: OnnxRuntime(providers=["NoSuch"]).open([Path("part.onnx")], None)):
    try:
        print(attempt())
    except T2IError as error:
        print(type(error).__name__, error)
"""
WHOLE = {"__init__.py": "def get_available_providers(): return ['CPUExecutionProvider']"}
WHOLE["capi/build_and_package_info.py"] = "package_name = 'onnxruntime'\n__version__ = '1.30.0'\n"


def with_another(folder, files, *packages):
    """What OTHER prints where pip believes that these packages are installed, and these files are left of them."""
    for name, text in files.items():
        (folder / "onnxruntime" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "onnxruntime" / name).write_text(text)
    for name, version in packages:
        told = folder / f"{name.replace('-', '_')}-{version}.dist-info"
        told.mkdir()
        (told / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (told / "top_level.txt").write_text("onnxruntime\n")
    done = subprocess.run([sys.executable, "-c", OTHER, str(folder)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_version_is_that_of_the_package_that_wrote_the_files(tmp_path):
    told = with_another(tmp_path, WHOLE, ("onnxruntime-gpu", "1.31.1"), ("onnxruntime", "1.30.0"))
    assert told.splitlines()[0] == "1.30.0"
    assert "no NoSuch here. Choose among its providers: CPUExecutionProvider.\n" in told
    assert "pip uninstall onnxruntime onnxruntime-gpu, then pip install onnxruntime-gpu" in told


@pytest.mark.parametrize(
    "left",
    [
        {"capi/libonnxruntime_providers_cuda.so": ""},
        {"__init__.py": "from onnxruntime.capi._pybind_state import get_device", "capi/other.py": ""},
    ],
)
def test_what_is_left_of_two_packages_when_one_is_removed(tmp_path, left):
    told = with_another(tmp_path, left, ("onnxruntime-gpu", "1.31.1"))
    assert told.count("MissingDependency onnxruntime is half there") == 2
    assert told.count("pip install --force-reinstall --no-deps onnxruntime-gpu\n") == 2


@pytest.mark.parametrize(
    ("system", "machine", "package"),
    [
        ("linux", "x86_64", "onnxruntime-gpu"),
        ("win32", "AMD64", "onnxruntime-gpu"),
        ("linux", "aarch64", "onnxruntime"),
        ("darwin", "arm64", "onnxruntime"),
        ("win32", "ARM64", "onnxruntime"),
    ],
)
def test_the_extra_brings_one_package_that_exists_there(system, machine, package):
    requirements = pytest.importorskip("packaging.requirements")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = [requirements.Requirement(line) for line in extras["onnxruntime"]]
    here = {"sys_platform": system, "platform_machine": machine}
    assert [each.name for each in asked if each.marker.evaluate(here)] == [package]


def test_without_the_library_the_error_says_what_to_install():
    code = """
import sys
sys.modules["onnxruntime"] = None
from engines import plugins
from engines.errors import MissingDependency
from pathlib import Path
backend = plugins.load("backends", "onnxruntime")()
try:
    backend.open([Path("part.onnx")], None)
except MissingDependency as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 't2iexport[onnxruntime]'" in done.stdout

"""What every backend promises. A backend inherits this suite by its file's existence."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from engines import plugins
from engines.errors import MissingDependency, UnsupportedError
from exporter.quantization import formats
from tests.backends.small_graph import SIGNATURE, expected, feed, wrong_answers

ROOT = Path(__file__).parents[2]
NAMES = plugins.names("backends")
pytestmark = pytest.mark.parametrize("name", NAMES)


def has_driver():
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def build(backend, onnx, signature, folder):
    """Build; skip where this machine lacks the library, or the GPU that the library builds on."""
    try:
        return list(backend.build(onnx, signature, folder))
    except MissingDependency as error:
        pytest.skip(str(error))
    except UnsupportedError as error:
        if "no NVIDIA driver" in str(error) and not has_driver():
            pytest.skip(str(error))
        raise


@pytest.fixture
def backend(name):
    return plugins.load("backends", name)()


@pytest.fixture
def engine(backend, graphs, tmp_path):
    """An open engine; where this machine cannot open one, UnsupportedError is the only way to say so."""
    files = build(backend, graphs(backend.opset), SIGNATURE, tmp_path / "engines")
    try:
        opened = backend.open(files, SIGNATURE)
    except UnsupportedError as error:
        assert "\n" in str(error), "an error says what, where and what to do"  # noqa: PT017 - raising is allowed, not asked for
        pytest.skip(f"cannot open here: {error}")
    with opened:
        yield opened


class TestOptions:
    def test_are_frozen_and_closed(self, backend):
        with pytest.raises(ValidationError):
            type(backend)(no_such_option=1)
        for field in type(backend).model_fields:
            with pytest.raises(ValidationError):
                setattr(backend, field, getattr(backend, field))

    def test_survive_json(self, backend):
        assert type(backend).model_validate(json.loads(backend.model_dump_json())) == backend
        json.dumps(type(backend).model_json_schema())

    def test_every_option_has_a_default_and_is_explained(self, backend):
        text = type(backend).__doc__
        for field, info in type(backend).model_fields.items():
            assert not info.is_required(), f"{field} has no default"
            assert field in text or info.description, f"{field} is explained nowhere"

    def test_class_says_what_it_depends_on(self, backend):
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert 17 <= backend.opset <= 26
        wanted = backend.distributions[0].replace("_", "-")
        assert any(line.replace("_", "-").startswith(wanted) for line in extras[backend.extra]), (wanted, extras[backend.extra])

    def test_exact_arithmetic_is_never_refused(self, backend):
        backend.refuse("fp32")

    def test_says_where_it_runs_and_never_computes_finer_than_the_graph(self, backend):
        assert isinstance(backend.runs_on_cpu, bool)
        assert backend.fused == ()  # as it comes, its graphs are anybody's
        assert set(backend.formats) | set(backend.refused_formats) == set(formats.offered())
        assert not set(backend.formats) & set(backend.refused_formats)
        classes = ["fp32", "fp16", "bf16"]
        try:
            inside = [backend.computes(precision) for precision in classes]
        except MissingDependency as error:
            pytest.skip(str(error))
        assert all(classes.index(found) >= index for index, found in enumerate(inside))

    @pytest.mark.parametrize("precision", ["fp16", "bf16", "fp8", "fp4", "int8", "int4"])
    def test_a_refusal_says_what_to_use_instead(self, backend, precision):
        try:
            backend.refuse(precision)
        except UnsupportedError as error:
            assert precision in str(error)  # noqa: PT017 - raising is allowed, not asked for


#: Runs in a fresh interpreter: what is loaded besides the run time's own dependencies, and the same with everything else blocked.
FRESH = """
import sys, json
import engines.plugins, engines.signature, engines.strict, engines.backends, numpy, pydantic
tops = lambda: {name.partition(".")[0] for name in sys.modules}
before = tops()
class Wall:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in before and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
if sys.argv[2] == "blocked":
    sys.meta_path.insert(0, Wall())
cls = engines.plugins.load("backends", sys.argv[1])
cls()
said = {"loaded": sorted(tops() - before - set(sys.stdlib_module_names))}
if sys.argv[2] == "blocked":
    from pathlib import Path
    signature = engines.signature.Signature(inputs=(), outputs=(), dims={})
    for verb, call in {
        "build": lambda: cls().build(Path(sys.argv[3]), signature, Path(sys.argv[3]).parent / "out"),
        "open": lambda: cls().open([Path(sys.argv[3])], signature),
    }.items():
        try:
            call()
            said[verb] = None
        except Exception as error:
            said[verb] = [type(error).__name__, getattr(error, "extra", None)]
print(json.dumps(said))
"""


def fresh(*arguments):
    run = subprocess.run(
        [sys.executable, "-c", FRESH, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


class TestLibrary:
    def test_is_not_loaded_by_the_options(self, name):
        assert fresh(name, "open")["loaded"] == []

    def test_missing_is_said_with_the_extra_to_install(self, name, backend, graphs):
        said = fresh(name, "blocked", graphs(backend.opset))
        assert said["build"] == ["MissingDependency", backend.extra]
        assert said["open"] == ["MissingDependency", backend.extra]

    def test_version_can_be_recorded(self, backend):
        try:
            version = backend.version
        except MissingDependency as error:
            pytest.skip(str(error))
        assert version[0].isdigit()


class TestBuild:
    def test_leaves_the_files_that_it_returns_and_nothing_else(self, backend, own_graph, tmp_path):
        graph, folder = own_graph(backend.opset), tmp_path / "engines"
        before = {file: file.read_bytes() for file in graph.parent.iterdir()}
        files = build(backend, graph, SIGNATURE, folder)
        assert files
        assert all(file.is_file() for file in files)
        assert len(set(files)) == len(files)
        assert set(files) - set(before) == (set(folder.rglob("*")) if folder.exists() else set())
        assert {file: file.read_bytes() for file in graph.parent.iterdir()} == before

    def test_is_reproducible(self, backend, graphs, tmp_path):
        first, second = (build(backend, graphs(backend.opset), SIGNATURE, tmp_path / folder) for folder in ("one", "two"))
        assert [file.name for file in first] == [file.name for file in second]
        assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]

    @pytest.mark.parametrize("damage", [b"", b"not a graph", None])
    def test_a_damaged_graph_is_named(self, backend, own_graph, tmp_path, damage):
        graph = own_graph(backend.opset)
        graph.write_bytes(graph.read_bytes()[:200] if damage is None else damage)
        with pytest.raises(UnsupportedError, match=graph.name):
            build(backend, graph, SIGNATURE, tmp_path / "engines")
        assert list((tmp_path / "engines").rglob("*")) == []

    @pytest.mark.parametrize(
        ("side", "change"),
        [
            ("inputs", {"name": "renamed"}),
            ("outputs", {"name": "renamed"}),
            ("inputs", {"dtype": "int64"}),
            ("outputs", {"dtype": "int64"}),
        ],
    )
    def test_a_graph_that_is_not_its_signature_is_refused(self, backend, graphs, tmp_path, side, change):
        first, *others = getattr(SIGNATURE, side)
        wrong = SIGNATURE.model_copy(update={side: (first.model_copy(update=change), *others)})
        with pytest.raises(UnsupportedError, match=r"part\.onnx"):
            build(backend, graphs(backend.opset), wrong, tmp_path / "engines")


class TestRun:
    @pytest.mark.parametrize("size", [(1, 2, 4), (2, 4, 8), (4, 8, 16), (3, 5, 6)])
    def test_equals_numpy(self, engine, size):
        inputs = feed(*size)
        outputs = engine(inputs)
        assert list(outputs) == ["moved", "next_ids"]
        for port in SIGNATURE.outputs:
            assert outputs[port.name].dtype == port.dtype
            np.testing.assert_allclose(outputs[port.name], expected(inputs)[port.name], rtol=1e-5, atol=1e-5)

    def test_outputs_are_the_callers(self, engine):
        inputs = feed(seed=1)
        given = {name: array.copy() for name, array in inputs.items()}
        first = engine(inputs)
        kept = {name: array.copy() for name, array in first.items()}
        engine(feed(seed=2))
        for name, array in first.items():
            np.testing.assert_array_equal(array, kept[name])
            array[...] = 0  # and may be written to
        for name, array in given.items():
            np.testing.assert_array_equal(inputs[name], array)

    def test_takes_arrays_however_they_lie(self, engine):
        inputs = feed()
        strided = {**inputs, "latent": np.asfortranarray(inputs["latent"]), "token_ids": inputs["token_ids"][:, ::-1]}
        strided["latent"].flags.writeable = False
        np.testing.assert_allclose(engine(strided)["moved"], expected(strided)["moved"], rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize(
        "change",
        [
            lambda inputs: inputs.pop("scale"),
            lambda inputs: inputs.update(surplus=np.zeros(1, np.float32)),
            lambda inputs: inputs.update(latent=inputs["latent"].astype(np.float64)),
            lambda inputs: inputs.update(token_ids=inputs["token_ids"].astype(np.int32)),
            lambda inputs: inputs.update(latent=inputs["latent"][0]),
            lambda inputs: inputs.update(latent=inputs["latent"][:, :3]),
            lambda inputs: inputs.update(latent=inputs["latent"][:1]),
            lambda inputs: inputs.update(feed(batch=5)),
            lambda inputs: inputs.update(feed(columns=7)),
        ],
    )
    def test_refuses_what_the_signature_does_not_take(self, engine, change):
        inputs = feed()
        change(inputs)
        with pytest.raises(UnsupportedError):
            engine(inputs)
        np.testing.assert_allclose(
            engine(feed())["moved"], expected(feed())["moved"], rtol=1e-5, atol=1e-5
        )  # and is none the worse

    def test_opens_files_in_the_order_of_their_names(self, engine, backend, graphs, tmp_path):
        files = build(backend, graphs(backend.opset), SIGNATURE, tmp_path / "again")
        with backend.open(sorted(files), SIGNATURE) as again:
            np.testing.assert_array_equal(again(feed())["moved"], engine(feed())["moved"])

    def test_threads_get_their_own_answers(self, engine):
        assert wrong_answers(engine, [(2, 4, 8), (2, 4, 8), (4, 8, 16), (1, 2, 4)]) == 0

    def test_closed_is_closed(self, engine):
        with engine:
            pass
        with pytest.raises(RuntimeError):
            engine(feed())

"""Verbs that make: what they print, refuse and end with."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from engines.bundle import Bundle
from engines.errors import BundleError, DivergenceError, RecipeError, SpeedError, UnsupportedError
from exporter.stages.plan import Stage
from exporter.stages.store import Store, key
from tests.exporter.verbs.samples import GOOD, RECIPE


def test_without_the_compile_extra_build_says_what_to_install(recipe):
    block = (
        "import sys\nclass Absent:\n    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in {'torch', 'diffusers', 'transformers', 'onnx', 'onnx_ir', 'ruamel'}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Absent())\nfrom exporter.cli import main\nmain(['build', sys.argv[1]])"
    )
    done = subprocess.run([sys.executable, "-c", block, str(recipe)], capture_output=True, text=True, check=False)
    assert done.returncode == 4, done.stderr
    assert "pip install 't2iexport[compile]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_recipe_is_told_and_nothing_is_built(run, recipe, tmp_path):
    recipe.write_text(RECIPE.replace("steps: [2]", "steps: [0], setps: 3"))
    code, out, err = run("build", recipe, "--set", "shapes.batch=x")
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "error: --set shapes.batch=x:  shapes.batch: must be a list, not 'x'; write ['x']",
        f"{recipe}:2  sampler.steps[0]: must be at least 1, not 0",
        f"{recipe}:2  sampler.setps: unknown field; did you mean 'steps'?",
        "3 problems; nothing was built.",
    ]
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (UnsupportedError("no such op"), 3, "error: no such op"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 4, "pip install 't2iexport[compile]'"),
        (KeyboardInterrupt(), 130, "interrupted; what was finished is kept"),
        (OSError(errno.ENOSPC, "No space left on device", "/"), 7, "error: writing: the disk at / is full"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 7, "error: /x: Permission denied. Is there room"),
        (OSError(errno.EROFS, "Read-only file system", "/x"), 7, "error: /x: Read-only file system."),
        (OSError(errno.EIO, "Input/output error"), 7, "error: Input/output error."),
        (MemoryError(), 7, "error: memory ran out"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 7, "error: memory ran out"),
        (DivergenceError("the loss of step 7 is nan"), 5, "error: the loss of step 7 is nan"),
        (SpeedError("slower"), 5, "error: slower"),
        (BundleError("damaged"), 6, "error: damaged"),
        (RecipeError("components.unte: this model has none"), 2, "mine.yaml:1  components.unte: this model has none"),
        (RecipeError("sampler.steps: too few"), 2, "mine.yaml:2  sampler.steps: too few"),
    ],
)
def test_an_error_of_the_build_has_its_exit_code(run, recipe, monkeypatch, error, code, told):
    def fail(*_arguments, **_options):
        raise error

    monkeypatch.setattr("exporter.build.build", fail)
    got, _, err = run("build", recipe)
    assert got == code
    assert told in err
    assert "Traceback" not in err


def test_a_place_for_a_bundle_is_tried_before_the_work(run, recipe, tiny_sd, monkeypatch, tmp_path):
    recipe.write_text(RECIPE.replace("SOURCE", str(tiny_sd)).replace("tensorrt_rtx", "onnxruntime"))
    monkeypatch.setattr(Store, "folder", lambda *_: pytest.fail("it was begun"))
    (tmp_path / "mine" / "pictures").mkdir(parents=True)
    for place, status, told in (("mine", 3, "is not a whole bundle"), ("mine.yaml/b", 7, "cannot be made a folder")):
        code, _, err = run("build", recipe, "-o", tmp_path / place)
        assert (code, told in err) == (status, True), err


def test_a_cache_that_cannot_be_is_a_sentence(run, recipe, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(recipe))
    code, _, err = run("build", recipe)
    assert code == 7
    assert err.startswith("error: the cache: ")
    assert "$XDG_CACHE_HOME" in err


@pytest.fixture
def built(bundle, monkeypatch):
    asked = {}

    def build(recipe, out, _store, report, *, reproducible, cluster):
        asked.update(recipe=recipe, out=out, reproducible=reproducible, cluster=cluster)
        for verb, why in (("record", ""), ("export", "options.opset 20 → 23")):
            own = key(verb, "unet", options={}, inputs={}, code={}, versions={})
            stage = Stage(verb, "unet", own, lambda *_: None, lambda folder: folder)
            report(stage)
            report(stage, 1.25, cached=not why, why=why)
        return Bundle.open(bundle.folder), [GOOD]

    monkeypatch.setattr("exporter.build.build", build)
    return asked


def test_build_prints_a_line_per_stage_and_the_blame_table(run, recipe, built):
    code, out, _ = run("build", recipe, "--set", "sampler.steps=[3]", "--check-reproducible")
    lines = out.splitlines()
    assert code == 0
    assert lines[:2] == [
        "record   unet                                 reused",
        "export   unet                                  1.2 s  options.opset 20 → 23",
    ]
    assert any("onnx → engine" in line and "60.0 dB" in line for line in lines)
    assert "a note" in lines
    assert lines[-1].startswith(f"{Path('bundles/mine')}: 0.0 MB; 1 of 2 stages were reused")
    assert built["recipe"].sampler.steps == (3,)
    assert built["reproducible"]


def test_build_prints_json_alone_on_stdout(run, recipe, built, tmp_path):
    code, out, err = run("build", recipe, "-o", tmp_path / "b", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["bundle"] == str(built["out"]) == str(tmp_path / "b")
    assert [stage["cached"] for stage in found["stages"]] == [True, False]
    assert found["verdicts"][0]["values"]["psnr"] == 60.0
    assert "export   unet" in err


def test_engines_are_built_on_a_cluster_that_answers(run, recipe, built, monkeypatch, tmp_path):
    assert run("build", recipe)[0] == 0
    assert built["cluster"] is None
    opened = []

    class Runner:
        def __init__(self, address):
            opened.append(address)

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            opened.append("closed")

    monkeypatch.setattr("exporter.cluster.ray_runner.RayRunner", Runner)
    assert run("build", recipe, "--ray", "10.0.0.1:6379", "--exchange", tmp_path.as_uri())[0] == 0
    assert isinstance(built["cluster"].runner, Runner)
    assert built["cluster"].exchange.url == tmp_path.as_uri()
    assert opened == ["10.0.0.1:6379", "closed"]


def test_a_cluster_that_does_not_answer_or_is_not_named_is_a_sentence(run, recipe, monkeypatch):
    def refuse(_address):
        raise UnsupportedError("--ray 10.0.0.1:6379: no cluster answers")

    monkeypatch.setattr("exporter.cluster.ray_runner.RayRunner", refuse)
    monkeypatch.setattr("exporter.build.build", lambda *_, **__: pytest.fail("it was begun"))
    code, _, err = run("build", recipe, "--ray", "10.0.0.1:6379")
    assert (code, err) == (3, "error: --ray 10.0.0.1:6379: no cluster answers\n")
    code, _, err = run("build", recipe, "--exchange", "s3://bucket/x")
    assert (code, err) == (3, "error: --exchange is for the machines of a cluster. Name one by --ray, or leave it out.\n")
    code, _, err = run("build", recipe, "--ray", "auto", "--exchange", "gopher://hole")
    assert code == 3
    assert "nobody knows gopher://" in err

"""The command line: frozen flags, quick help, exit codes, and what it prints."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner

from engines.bundle import Bundle, Verdict
from engines.errors import BundleError, DivergenceError, ParityError, RecipeError, SpeedError, UnsupportedError
from exporter import cli
from exporter.stages.plan import Stage
from exporter.stages.store import Store, key
from tests.engines import conditioned, small

ROOT = Path(__file__).parents[2]
#: New knobs go into the recipe. Whoever adds a flag here has read docs/decisions, and has a reason that `--set` is not.
FLAGS = {
    "bench": {"--against", "--batch", "--repeats", "--steps", "--json", "--plot"},
    "build": {"-o", "--output", "--set", "--dry-run", "--check-reproducible", "--json"},
    "check": {"--backend", "--json", "--junit", "--no-receipt"},
    "convert": {"--to", "-o", "--output"},  # whose layout a copy has is no property of the bundle
    "debug": {"--backend", "-o", "--output"},  # a question about a bundle, which changes nothing in it
    "diff": {"-o", "--output", "--rounds"},  # a question about bundles, which changes nothing in them
    "distill": {"--set"},
    "generate": {
        *("-o", "--output", "--negative-prompt", "--seed", "--steps", "--height", "--width", "--guidance-scale", "--backend"),
        *("--image", "--mask", "--lora", "--strength", "--noise", "--from", "--previews", "--prompt-2", "--negative-prompt-2"),
        *("--input", "--images-per-prompt", "--generator", "--no-metadata", "--parallel", "--best-of", "--reward"),
        "--sampler",  # a recipe has no say: any bundle of a variance-preserving model takes any of them
    },
    "inspect": {"--json", "--as-recipe"},  # a choice that was measured, back as a choice that is written
    "list": {"--schema"},
    "optimize-noise": {"-o", "--output", "--reward", "--iterations", "--lr", "--weight", "--seed", "--steps", "--guidance-scale"},
    "rebuild": {"--backend"},
    "reward": {"-o", "--output", "--processor", "--revision", "--target"},  # of no recipe: it judges any bundle's pictures
    "serve": {"--host", "--port", "--backend", "--keys", "--cors", "--lora", "--set"},  # --set is its one escape
    "sweep": {"-o", "--output", "--ray", "--yes"},  # where the work is done is no property of a sweep
    "triton": {"-o", "--output", "--backend"},  # which of a bundle's engines are copied
    "web": {"-o", "--output", "--onnxruntime-web"},  # where a library comes from is no property of a bundle
}
RECIPE = """\
model: {source: SOURCE}
sampler: {steps: [2]}
shapes: {height: [32, 32, 64], width: [32, 32, 64]}
targets: [tensorrt_rtx]
"""
FIGURES = {"values": {"relative_l2": 1e-3, "psnr": 60.0}, "limit": {"psnr": 45.0}}
GOOD = Verdict(part="unet", stage="onnx → engine", case="t 999", backend="b", passed=True, **FIGURES)
BAD = GOOD.model_copy(update={"values": {"psnr": 12.5}, "passed": False, "note": "half"})


@pytest.fixture
def run(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def call(*arguments):
        with pytest.raises(SystemExit) as caught:
            cli.main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return caught.value.code, out, err

    return call


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def bundle(tmp_path):
    return small.make(tmp_path / "small", verdicts=(GOOD,), notes=("a note",))


def test_the_flags_are_frozen():
    found = {
        name: {flag for option in command.params if option.param_type_name == "option" for flag in option.opts}
        for name, command in cli.verbs.commands.items()
    }
    assert found == FLAGS


@pytest.mark.parametrize("verb", [(), *((verb,) for verb in FLAGS)], ids=str)
def test_help_loads_nothing_heavy(verb):
    probe = (
        "import sys\nfrom exporter.cli import main\n"
        "try: main([*sys.argv[1:], '--help'])\nexcept SystemExit as end: assert end.code == 0\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & set(heavy)), file=sys.stderr)"
    )
    heavy = ["torch", "diffusers", "transformers", "onnx", "onnxruntime", "tensorrt_rtx", "pydantic", "rich", "ruamel"]
    done = subprocess.run([sys.executable, "-c", f"heavy = {heavy}\n{probe}", *verb], capture_output=True, text=True, check=True)
    assert "Usage: t2iexport" in done.stdout
    assert done.stderr == "[]\n"


def test_help_is_quick():
    def seconds():
        before = os.times()
        subprocess.run([sys.executable, "-c", "from exporter.cli import main; main(['--help'])"], capture_output=True, check=True)
        after = os.times()
        # Time of the processor, because other tests may run beside this one.
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert min(seconds() for _ in range(3)) <= 0.5


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


@pytest.mark.parametrize("wish", ["check --json", "check --junit", "bench --json", "bench --plot"])
@pytest.mark.parametrize(("place", "told"), [("none/x.svg", "there is no folder"), ("file/x.svg", "there is no folder")])
def test_outputs_are_tried_before_the_work(run, bundle, monkeypatch, tmp_path, wish, place, told):
    (tmp_path / "file").write_text("")
    for work in ("exporter.build.check", "exporter.bench.run.bench"):
        monkeypatch.setattr(work, lambda *_, **__: pytest.fail("it was done"))
    verb, option = wish.split()
    code, _, err = run(verb, bundle.folder, option, tmp_path / place)
    assert (code, told in err, "Traceback" in err) == (7, True, False)


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


@pytest.mark.parametrize("verb", ["build", "distill", "inspect", "check", "rebuild", "bench", "generate", "serve"])
@pytest.mark.parametrize("what", ["a folder", "nothing", "bytes", "bytes.yaml", "a file/below"])
def test_what_is_no_recipe_and_no_bundle_is_no_traceback(run, tmp_path, verb, what):
    (tmp_path / "a folder").mkdir()
    for name in ("bytes", "bytes.yaml", "a file"):
        (tmp_path / name).write_bytes(bytes(range(256)))
    code, _, err = run(verb, tmp_path / what, *(["a star"] if verb == "generate" else []))
    assert code in {2, 3, 6}, err
    assert "Traceback" not in err


def test_a_bug_is_a_traceback(recipe, monkeypatch):
    monkeypatch.setattr("exporter.build.build", lambda *_a, **_o: {}["bug"])
    with pytest.raises(KeyError):
        cli.main(["build", str(recipe)])


def test_wrong_usage_is_exit_2(run):
    code, _, err = run("build")
    assert code == 2
    assert "Missing argument 'RECIPE'" in err


@pytest.fixture
def built(bundle, monkeypatch):
    asked = {}

    def build(recipe, out, _store, report, *, reproducible):
        asked.update(recipe=recipe, out=out, reproducible=reproducible)
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


def test_check_writes_what_it_found(run, bundle, monkeypatch, tmp_path):
    asked = []

    def check(_path, backend, say, *, receipt):
        asked.append(receipt)
        say("the disk is read-only")
        return [GOOD, BAD] if backend == "b" else [GOOD]

    monkeypatch.setattr("exporter.build.check", check)
    code, out, err = run("check", bundle.folder)
    assert (code, err) == (0, "note: the disk is read-only\n")
    assert "60.0 dB" in out
    run("check", bundle.folder, "--no-receipt")
    assert asked == [True, False]
    code, out, err = run("check", bundle.folder, "--backend", "b", "--json", tmp_path / "v.json", "--junit", tmp_path / "v.xml")
    assert (code, out) == (ParityError.exit_code, "")
    assert "FAIL" in err
    assert "1 of 2 comparisons are out of limits" in err
    assert [verdict["passed"] for verdict in json.loads((tmp_path / "v.json").read_text())["verdicts"]] == [True, False]
    suite = ET.parse(tmp_path / "v.xml").getroot()  # noqa: S314 - it was written two lines above
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert suite.find("testcase/failure").get("message") == "PSNR 12.5 dB; limit 45 dB. half"


def test_bench_asks_and_writes_what_it_found(run, bundle, monkeypatch, tmp_path):
    from tests.exporter.bench.test_run import report

    asked = []

    def bench(path, against, **options):
        options.pop("say")("opening")
        asked.append((path, against, options))
        return report()

    monkeypatch.setattr("exporter.bench.run.bench", bench)
    code, out, err = run("bench", bundle.folder)
    assert (code, err) == (0, "opening\n")
    assert "where the time of mine goes" in out
    wishes = ("--against", "diffusers", "--against", "x", "--batch", "1,4", "--repeats", 3, "--steps", 2)
    code, _, err = run("bench", bundle.folder, *wishes, "--json", tmp_path / "b.json", "--plot", tmp_path / "b.svg")
    assert code == 0, err
    assert asked == [
        (bundle.folder, (), {"batches": [1], "repeats": 10, "steps": None}),
        (bundle.folder, ("diffusers", "x"), {"batches": [1, 4], "repeats": 3, "steps": 2}),
    ]
    assert json.loads((tmp_path / "b.json").read_text())["psnr"]["reference"] == "diffusers"
    assert (tmp_path / "b.svg").read_text().startswith("<?xml")
    for wrong, told in ((("--batch", "1,x"), "'1,x' is not a list of batches"), (("--plot", "b.txt"), "must end in .png")):
        code, _, err = run("bench", bundle.folder, *wrong)
        assert code == 2
        assert told in err
    assert len(asked) == 2


def test_inspect_describes_a_bundle(run, bundle):
    code, out, _ = run("inspect", bundle.folder)
    assert code == 0
    for told in ("classifier_free 2.0", "32 x 32 px, 2 steps", "9 → 5", "onnxruntime", "threads 1", "64", "60.0", "a note", "MB"):
        assert told in out
    found = json.loads(run("inspect", bundle.folder, "--json")[1])
    assert [part["part"] for part in found["parts"]] == ["text_encoder", "unet", "vae_decoder"]
    assert found["samplers"][1] == {"steps": 4, "kind": "table", "size": "32 x 64 px"}
    code, _, err = run("inspect", bundle.folder / "onnx")
    assert code == 6
    assert "manifest.json is missing" in err


def test_inspect_and_dry_run_describe_a_recipe(run, recipe, tiny_sd):
    recipe.write_text(RECIPE.replace("SOURCE", str(tiny_sd)))
    code, out, err = run("inspect", recipe, "--json")
    assert code == 0, err
    assert json.loads(out)["guidance"] == "none"
    guided = "{steps: [2], guidance: {mode: classifier_free, scale: 5, rescale: 0.7}}"
    recipe.write_text(recipe.read_text().replace("{steps: [2]}", guided))
    code, out, err = run("inspect", recipe)
    assert code == 0, err
    assert "classifier_free 5.0 rescaled by 0.7" in out
    assert "G multiply-adds" in out
    assert "sd\n" in out
    found = json.loads(run("build", recipe, "--dry-run", "--json")[1])
    assert found["reused"] == f"0 of {len(found['stages'])} stages"
    assert {stage["why"] for stage in found["stages"]} == {"first build"}
    assert found["memory"].endswith("GB")
    code, _, err = run("build", recipe, "--dry-run", "--set", "shapes.height=[20, 32, 64]")
    assert code == 2
    assert "--set shapes.height=[20, 32, 64]:  shapes.height: 20 px is not a multiple of 8" in err


def test_list_samplers_is_what_compiles():
    done = CliRunner().invoke(cli.verbs, ["list", "samplers"])
    assert done.exit_code == 0, done.output
    lines = {line.split()[0]: line.split() for line in done.output.splitlines() if line.startswith("  ") and line.split()}
    assert done.output.startswith("\nsamplers\n")
    assert "\nrefused\n" in done.output
    assert lines["scheduler"][1:] == ["why"]  # the second table's head; each has its own
    order, evaluations, largest, deviation = map(float, lines["DDIMScheduler"][1:5])
    assert (order, evaluations) == (1.0, 1.0)
    assert largest > 1
    assert 0 < deviation < 1e-5
    assert lines["DDPMScheduler"][1:4] == ["–", "1", "drawn"]
    assert "Brownian" in lines["DPMSolverSDEScheduler"]
    assert lines["table"]


@pytest.mark.parametrize("kind", ["families", "passes", "backends", "recipes", "architectures", "pipelines"])
def test_list_names_what_there_is(kind):
    done = CliRunner().invoke(cli.verbs, ["list", kind])
    assert done.exit_code == 0, done.output
    known = {
        "families": "sdxl",
        "backends": "onnxruntime",
        "recipes": "sdxl-base",
        "architectures": "koala-1b",
        "pipelines": "PixArtSigmaPipeline",
    }
    assert known.get(kind, "") in done.output
    assert done.output.startswith(f"\n{kind}\n")


def test_inspect_says_what_a_bundle_takes(run, tmp_path):
    folder = small.make(tmp_path / "conditioned", **conditioned.changes()).folder
    code, out, _ = run("inspect", folder)
    assert code == 0
    for told in (
        "guidance_scale 1.5",
        "classifier_free 2.0",
        "must be given",
        "edges, white on black",
        "hint_scale",
        "condition",
    ):
        assert told in out


def test_list_prints_the_schema(run):
    pytest.importorskip("onnxruntime")
    assert json.loads(run("list", "--schema")[1]) == json.loads((ROOT / "recipes/recipe.schema.json").read_text())

"""The command line: frozen flags, quick help, exit codes."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from exporter import cli

ROOT = Path(__file__).parents[3]
#: New knobs go into the recipe. Whoever adds a flag here has read docs/decisions, and has a reason that `--set` is not.
FLAGS = {
    "bench": {"--against", "--batch", "--repeats", "--steps", "--json", "--plot", "--operators"},
    # Where engines are built is no property of a bundle.
    "build": {"-o", "--output", "--set", "--dry-run", "--check-reproducible", "--json", "--ray", "--exchange"},
    "check": {"--backend", "--json", "--junit", "--no-receipt"},
    "convert": {"--to", "-o", "--output"},  # whose layout a copy has is no property of the bundle
    "debug": {"--backend", "-o", "--output"},  # a question about a bundle, which changes nothing in it
    "diff": {"-o", "--output", "--rounds"},  # a question about bundles, which changes nothing in them
    "distill": {"--set"},
    "draw": {  # of no recipe, as generate's; and where the work is done
        *("-o", "--output", "--negative-prompt", "--seed", "--steps", "--height", "--width", "--guidance-scale", "--backend"),
        *("--ray", "--cpus", "--gpus", "--shard"),
    },
    "generate": {
        *("-o", "--output", "--negative-prompt", "--seed", "--steps", "--height", "--width", "--guidance-scale", "--backend"),
        *("--image", "--mask", "--lora", "--strength", "--noise", "--from", "--previews"),
        *("--input", "--images-per-prompt", "--generator", "--no-metadata"),  # a wish for a picture, not for a bundle
        *("--denoising-start", "--denoising-end"),  # which of a recipe's tables is played, as --strength
        *("--prompt-2", "--negative-prompt-2", "--parallel", "--best-of", "--reward"),  # what chooses is no part of what draws
        "--pag-scale",  # as --guidance-scale, of what the recipe compiled in
        "--sampler",  # a recipe has no say: any bundle of a variance-preserving model takes any of them
    },
    "inspect": {"--json", "--as-recipe"},  # a choice that was measured, back as a choice that is written
    "list": {"--schema"},
    # Of no recipe, as reward's; how far and how fast is asked of each model anew.
    "optimize-noise": {"-o", "--output", "--reward", "--iterations", "--lr", "--weight", "--seed", "--steps", "--guidance-scale"},
    "rebuild": {"--backend"},
    "reward": {"-o", "--output", "--processor", "--revision", "--target"},  # of no recipe: it judges any bundle's pictures
    "serve": {"--host", "--port", "--backend", "--keys", "--cors", "--lora", "--set"},  # --set is its one escape
    "sweep": {"-o", "--output", "--ray", "--yes"},  # where the work is done is no property of a sweep
    "triton": {"-o", "--output", "--backend"},  # which of a bundle's engines are copied
    "web": {"-o", "--output", "--onnxruntime-web"},  # where a library comes from is no property of a bundle
}


def verb(name):
    return cli.verbs.get_command(click.Context(cli.verbs), name)


def test_the_flags_are_frozen():
    found = {
        name: {flag for option in command.params if option.param_type_name == "option" for flag in option.opts}
        for name, command in ((name, verb(name)) for name in cli.VERBS)
    }
    assert found == FLAGS


@pytest.mark.parametrize("name", cli.VERBS)
def test_a_verb_says_of_itself_what_the_list_says(name):
    assert inspect.cleandoc(verb(name).help).split("\n\n")[0].replace("\n", " ") == cli.VERBS[name][1]


def test_help_lists_every_verb_in_order_and_imports_none():
    probe = (
        "import sys\nfrom exporter.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    shown = [line.split()[0] for line in done.stdout.split("Commands:\n")[1].splitlines() if line[:3].strip()]
    assert shown == sorted(FLAGS)
    assert "..." not in done.stdout.replace("[OPTIONS] COMMAND [ARGS]...", "").replace("BUNDLE...", ""), "a sentence is cut off"
    assert not {module for module, _ in cli.VERBS.values()} & set(done.stderr.split())


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


@pytest.mark.parametrize("wish", ["check --json", "check --junit", "bench --json", "bench --plot"])
@pytest.mark.parametrize(("place", "told"), [("none/x.svg", "there is no folder"), ("file/x.svg", "there is no folder")])
def test_outputs_are_tried_before_the_work(run, bundle, monkeypatch, tmp_path, wish, place, told):
    (tmp_path / "file").write_text("")
    for work in ("exporter.build.check", "exporter.bench.run.bench"):
        monkeypatch.setattr(work, lambda *_, **__: pytest.fail("it was done"))
    verb, option = wish.split()
    code, _, err = run(verb, bundle.folder, option, tmp_path / place)
    assert (code, told in err, "Traceback" in err) == (7, True, False)


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

"""`inspect` and `list`: what they say."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from exporter import cli
from tests.engines import conditioned, small
from tests.exporter.verbs.samples import RECIPE

ROOT = Path(__file__).parents[3]


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

"""Every example of CONTRIBUTING.md is one file, and a line of a recipe or of a command uses it as what stands in the tree."""

import json
import subprocess
import sys

import numpy as np
import onnx_ir as ir
import pytest
from click.testing import CliRunner

from engines import plugins
from engines.bundle import Bundle
from engines.errors import UnsupportedError
from engines.pipeline import Pipeline
from exporter import cli, machine
from exporter.families import claim
from exporter.models.resolve import resolve
from exporter.passes import Pass
from exporter.quantization import formats
from exporter.recipe.json_schema import schema
from exporter.recipe.schema import Recipe
from exporter.reference.part_outputs import measure
from exporter.reference.record import record
from exporter.report import describe
from exporter.stages.closure import PACKAGES, ROOT
from exporter.stages.plan import Plan
from tests.exporter import equality
from tools.coverage.models import MADE

FLUX = """
model: {source: %s}
sampler: {steps: [2], guidance: {mode: none}}
shapes: {height: [32, 32, 32], width: [32, 32, 32]}
checks: {prompts: [a red circle]}
"""


@pytest.mark.parametrize("kind", ["families", "backends", "passes", "graph", "samplers"])
def test_it_is_one_file_that_no_list_knows(installed, kind):
    example = installed[kind]
    file = plugins.source(kind, example.name)
    assert [path.name for path in file.parent.rglob("*.py")] == [f"{example.name}.py"]
    assert example.name in plugins.names(kind)
    assert {row["name"]: row["what"] for row in describe.listing(kind)}[example.name] == example.text.splitlines()[0].strip('"')
    ours = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    assert not [file for file in ours if example.name in file.read_text()]


def test_it_is_as_clean_as_what_stands_in_the_tree(installed, tmp_path):
    for example in installed.values():
        (tmp_path / f"{example.name}.py").write_text(example.text)
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--config",
        str(ROOT / "pyproject.toml"),
        "--ignore",
        "INP001",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.usefixtures("installed")
def test_a_family_claims_its_models_and_asks_their_pipeline_in_its_own_way(tmp_path):
    MADE["flux"]().save_pretrained(tmp_path / "model")
    recipe = Recipe.parse(FLUX % (tmp_path / "model"), "flux")
    family = claim(resolve(recipe.model, tmp_path), recipe)
    assert type(family).__name__ == "ShortFlux"
    length = {"tokenizer_ids": 77, "tokenizer_2_ids": 128}
    assert {port.name: port.shape[-1] for port in family.signature("text_encoder").inputs} == length
    assert {entry.length for entry, _ in family.tokenizers().values()} == set(length.values())
    recording = record(family, recipe)
    for part in family.roles:
        for case in measure(family.part(part, "fp32"), recording.cases[part]):
            for port, wanted in case.source.items():
                assert np.linalg.norm(case.passes[port] - wanted) / np.linalg.norm(wanted) < equality.ROUNDING


@pytest.mark.long
def test_their_code_is_part_of_the_keys_of_what_they_make(built):
    code = {stage.name: stage.key.ingredients["code"] for stage in Plan(built.recipe).stages}
    assert "round_weights" in code["pass", "unet, round_weights"]
    assert "name_nodes" in code["export", "vae_decoder, opset 20"]
    assert "onnx_reference" in code["engine", "unet, onnx_reference"]
    assert "onnx_reference" not in code["engine", "unet, onnxruntime"]


def test_a_backend_builds_checks_and_draws(built):
    engine = built.bundle.manifest.parts["unet"].engines["onnx_reference"]
    assert engine.options == {"verbose": 0}
    assert engine.files == built.bundle.manifest.parts["unet"].onnx["20"].files, "it runs the graph itself"
    checked = [line for line in built.verdicts if line.backend == "onnx_reference"]
    assert {line.part for line in checked} >= {"unet", "vae_decoder", "text_encoder", "end to end"}
    assert all(line.passed for line in checked)
    pictures = []
    for backend in ("onnxruntime", "onnx_reference"):
        with Pipeline.open(built.path, backend) as pipeline:
            pictures.append(np.asarray(pipeline.generate("a red circle", seed=3)[0], np.float32))
    assert np.abs(pictures[0] - pictures[1]).max() <= 1


@pytest.mark.usefixtures("installed")
def test_a_backend_s_formats_schema_and_version_are_known():
    (row,) = [row for row in formats.rows() if row["target"] == "onnx_reference"]
    assert (row["format"], row["answer"]) == ("int8-weights", "unpacked at every call")
    assert "verbose" in schema()["$defs"]["backends.onnx_reference"]["properties"]
    assert machine.environment().libraries["onnx"] == plugins.load("backends", "onnx_reference")().version
    with pytest.raises(UnsupportedError, match="none of its targets can use it"):
        plugins.load("passes", "sparsify")().suits("unet", {"onnx_reference": plugins.load("backends", "onnx_reference")()})


def test_a_pass_makes_the_network_that_is_exported(built):
    entry = built.bundle.manifest.parts["unet"]
    assert entry.passes[0] == "round_weights: 10 bits"
    assert entry.remade
    assert "unet: weights have 10 bits of mantissa" in built.bundle.manifest.notes
    for name, rounded in (("unet", True), ("vae_decoder", False)):
        (weight,) = [value for value in graph(built, name).graph.initializers.values() if value.name.endswith("conv_in.weight")]
        beyond = weight.const_value.numpy().view(np.uint32) & (2**13 - 1)  # float32 has 13 bits of mantissa more
        assert (not beyond.any()) is rounded, name


def graph(built, name):
    return ir.load(built.bundle.path(built.bundle.manifest.parts[name].onnx["20"].files[0]))


@pytest.mark.usefixtures("installed")
def test_a_pass_answers_all_that_is_asked_of_one():
    step = plugins.load("passes", "round_weights")(bits=3)
    for name in vars(Pass):
        assert name.startswith("_") or hasattr(step, name)


def test_a_graph_pass_stands_where_it_says(built):
    for name in built.bundle.manifest.parts:
        assert all(node.name == f"{number}_{node.op_type}" for number, node in enumerate(graph(built, name).graph)), name


def test_a_sampler_is_asked_for_by_its_name(built):
    seen = []
    with Pipeline.open(built.path, "onnxruntime") as pipeline:
        pictures = [
            pipeline.generate("a red circle", seed=3, sampler="even_ddim:steps=5", on_step=seen.append)[0] for _ in range(2)
        ]
    assert [step.index for step in seen] == [1, 2, 3, 4, 5] * 2
    assert np.array_equal(*pictures)
    out = built.path.parent / "out.png"
    words = ["generate", str(built.path), "a red circle", "--sampler", "even_ddim:step=5", "--output", str(out)]
    told = CliRunner().invoke(cli.verbs, words)
    assert "sampler even_ddim has no option 'step'; did you mean 'steps'?" in f"{told.output}{told.exception}"


def test_a_metric_is_measured_printed_and_limited(built, metric):
    (line,) = [line for line in built.verdicts if line.stage == "image" and line.backend == "onnxruntime"]
    assert line.limit == {"cosine": 0.99}
    assert 0.99 < line.values["cosine"] <= 1.0
    written = json.loads((built.path / "manifest.json").read_text())["verdicts"]
    assert any(verdict["values"].get("cosine") for verdict in written)
    rows = describe.bundle(built.path)["verdicts"]
    assert all("cosine" in row for row in rows)
    assert Bundle.open(built.path).manifest.limits == {"image": {"cosine": 0.99}}
    assert metric.of(np.ones(3), 2 * np.ones(3), None) == pytest.approx(1.0)

"""A part with a backend of its own: built for it alone, played on it, checked by its own limits, and the exports are reused."""

import pytest

from engines.bundle import Bundle
from engines.pipeline import Pipeline
from engines.rebuild import rebuild
from exporter.build import build, check
from exporter.parity import table
from exporter.recipe import limits
from exporter.recipe.schema import Recipe
from exporter.stages.store import Store
from tests.arithmetic import needs_bf16, needs_openvino
from tests.e2e.conftest import silent

needs_openvino(allow_module_level=True)
pytestmark = pytest.mark.timeout(1200)
OWN = ["components.vae_decoder.target={openvino: {precision: bf16}}"]


@pytest.fixture(scope="module")
def mixed(built, processors, tmp_path_factory):
    needs_bf16()
    seen = {}

    def report(stage, seconds=None, *, cached=False, why="", by=""):  # noqa: ARG001 - the protocol's
        if seconds is not None and not by:  # what the second process makes the build finds made
            seen[stage.verb, stage.subject] = cached

    path = tmp_path_factory.mktemp("mixed") / "mixed"
    _, verdicts = build(Recipe.load(processors, OWN), path, Store(built.store), report)
    return path, verdicts, seen


def test_it_is_built_for_that_alone_and_nothing_of_the_source_is_done_again(mixed):
    path, _, seen = mixed
    fresh = {name for name, cached in seen.items() if not cached}
    assert ("engine", "vae_decoder, openvino") in fresh
    assert ("engine", "vae_decoder, onnxruntime") not in seen
    assert {verb for verb, _ in fresh} <= {"engine", "check"}
    engines = {name: list(part.engines) for name, part in Bundle.open(path).manifest.parts.items()}
    assert engines.pop("vae_decoder") == ["openvino"]
    assert set(map(tuple, engines.values())) == {("onnxruntime",)}


def test_its_line_names_it_and_its_limits_are_those_of_what_it_computes_in(mixed):
    path, verdicts, _ = mixed
    assert all(verdict.passed for verdict in verdicts)
    lines = {(line.part, line.stage): line for line in table.worst(verdicts)}
    decoder, unet = lines["vae_decoder", "onnx → engine"], lines["unet", "onnx → engine"]
    assert (decoder.backend, decoder.note) == ("openvino", "openvino, bf16 inside")
    assert decoder.limit == {"psnr": limits.LIMITS["engine"]["bf16"]}
    assert (unet.backend, unet.limit) == ("onnxruntime", {"psnr": limits.LIMITS["engine"]["fp32"]})
    assert lines["end to end", "image"].limit == {"psnr": limits.LIMITS["image"]["bf16"]}
    manifest = Bundle.open(path).manifest
    assert manifest.runs() == {"onnxruntime": dict.fromkeys(manifest.parts, "onnxruntime") | {"vae_decoder": "openvino"}}


def test_check_says_the_same_and_keeps_one_line_each(mixed):
    path, verdicts, _ = mixed
    before = Bundle.open(path).manifest.verdicts
    assert len(check(path, None)) == len(verdicts)
    assert [(v.part, v.stage, v.backend) for v in Bundle.open(path).manifest.verdicts] == [
        (v.part, v.stage, v.backend) for v in before
    ]


def test_rebuilding_it_drops_what_was_said_of_it_and_of_the_whole(mixed):
    path, _, _ = mixed
    assert rebuild(path, "openvino")[0].startswith("vae_decoder: built again with openvino")
    left = {(verdict.part, verdict.backend) for verdict in Bundle.open(path).manifest.verdicts}
    assert ("unet", "onnxruntime") in left
    assert not {("vae_decoder", "openvino"), ("end to end", "onnxruntime")} & left
    with Pipeline.open(path) as pipeline:
        assert pipeline.generate("a red circle", steps=4, height=32, width=32)


def test_every_part_on_openvino(built, processors, tmp_path):
    targets = ["targets=[openvino: {precision: f32, threads: 1}]"]
    opened, verdicts = build(Recipe.load(processors, targets), tmp_path / "all", Store(built.store), silent)
    assert list(opened.manifest.runs()) == ["openvino"]
    assert {verdict.backend for verdict in verdicts} == {None, "openvino"}
    assert all(verdict.passed for verdict in verdicts)

"""Quantized bundles: built, told, and refused where they are bad, not better, or could not be."""

import json

import pytest

from engines.backends.openvino import OpenVino
from engines.bundle import Bundle
from engines.errors import ParityError, RecipeError, SpeedError, UnsupportedError
from engines.pipeline import Pipeline
from engines.rebuild import rebuild
from exporter.build import build, check
from exporter.quantization import gate
from exporter.recipe.schema import Recipe
from exporter.stages import freeze
from exporter.stages.plan import Plan
from exporter.stages.store import Store
from tests.e2e.conftest import silent

RECIPE = """
model: {source: %s}
sampler:
  scheduler: EulerDiscreteScheduler
  config: {timestep_spacing: trailing}
  steps: [4]
  guidance: {mode: classifier_free, scale: 5.0}
shapes: {height: [16, 32, 48], width: [16, 32, 48], batch: [1, 1, 2]}
components:
  unet: {passes: [quantize: %s]}
  vae_encoder: {}
targets: %s
checks: {prompts: [a red circle, the blue square]%s}
"""


def root(bundle):
    """Its folder."""
    return bundle.path("tokenizers/tokenizer.json").parent.parent


#: One process builds the bundle whose graphs, but for the denoiser's, all of these share.
pytestmark = [pytest.mark.timeout(1200), pytest.mark.long]


@pytest.fixture(scope="module")
def make(tiny_sdxl, built, processors, tmp_path_factory):  # noqa: ARG001 - what `processors` made is in the store
    folder = tmp_path_factory.mktemp("quantized")

    def call(options, targets="[onnxruntime]", checks="", name="tiny"):
        recipe = Recipe.parse(RECIPE % (tiny_sdxl, options, targets, checks), name)
        return build(recipe, folder / name, Store(built.store), silent)

    return call


@pytest.fixture(scope="module")
def small(make):
    return make("{format: int8-weights, keep_above: 40}", name="small")


def test_a_quantized_bundle_says_what_was_done_and_draws(small):
    bundle, verdicts = small
    entry = bundle.manifest.parts["unet"]
    assert entry.quantized.format == "int8-weights"
    assert 0 < entry.quantized.quantized < entry.quantized.layers
    assert {"conv_in", "conv_out"} <= set(entry.quantized.kept)
    found = json.loads(bundle.path(entry.quantized.calibration).read_text())
    assert found["measured"] >= 40
    assert len(found["layers"]) == entry.quantized.quantized
    assert all(verdict.passed for verdict in verdicts)
    assert {line.limit["psnr"] for line in verdicts if (line.part, line.stage) == ("unet", "passes → onnx")} == {30.0}
    assert any(note.startswith("unet: quantize: int8-weights, onnxruntime: ") for note in bundle.manifest.notes)
    with Pipeline.open(root(bundle)) as pipeline:
        assert pipeline.generate("a red circle", seed=1)[0].size == (32, 32)


def test_it_is_checked_and_rebuilt_like_any_other(small):
    bundle, _ = small
    assert all(verdict.passed for verdict in check(root(bundle), None))
    rebuild(root(bundle), None)
    assert Bundle.open(root(bundle)).manifest.parts["unet"].quantized == bundle.manifest.parts["unet"].quantized


def test_what_was_measured_can_be_written_into_a_recipe(small, make):
    bundle, _ = small
    text = freeze.written(root(bundle))
    assert "keep_above" not in text
    (step,) = Recipe.parse(text, "again").components["unet"].passes
    assert step["quantize"]["keep"] == list(bundle.manifest.parts["unet"].quantized.kept)
    again, _ = make(json.dumps(step["quantize"]), name="again")
    graphs = [each.path(each.manifest.parts["unet"].onnx["20"].files[0]).read_bytes() for each in (bundle, again)]
    assert graphs[0] == graphs[1]


def test_what_became_of_the_layers_that_stay_is_told_and_written_too(make):
    chosen = "{format: int4-weights, search: false, keep_above: 33, rest: int8-weights, untouched: [conv_in]}"
    bundle, _ = make(chosen, name="rest")
    entry = bundle.manifest.parts["unet"].quantized
    found = json.loads(bundle.path(entry.calibration).read_text())
    lowered = [name for name in entry.kept if name in found["layers"]]
    assert 0 < len(lowered) < len(entry.kept)
    said = f"unet: {len(lowered)} of the {len(entry.kept)} layers that stay have weights in 8 bits; the calibration says why"
    assert said in bundle.manifest.notes
    (step,) = Recipe.parse(freeze.written(root(bundle)), "again").components["unet"].passes
    assert step["quantize"]["untouched"] == [name for name in entry.kept if name not in lowered]
    again, _ = make(json.dumps(step["quantize"]), name="rest-again")
    for file in (0, 1):
        first, second = (each.path(each.manifest.parts["unet"].onnx["20"].files[file]) for each in (bundle, again))
        assert first.read_bytes() == second.read_bytes()


def test_a_calibration_is_used_again_and_only_for_its_own_model(small, make, tmp_path):
    bundle, _ = small
    file = bundle.path(bundle.manifest.parts["unet"].quantized.calibration)
    again, _ = make(f"{{format: int8-weights, calibration: {file}}}", name="reused")
    graphs = [each.path(each.manifest.parts["unet"].onnx["20"].files[1]).read_bytes() for each in (bundle, again)]
    assert graphs[0] == graphs[1]
    other = json.loads(file.read_text()) | {"digest": "f" * 64}
    (tmp_path / "unet.json").write_text(json.dumps(other))
    with pytest.raises(RecipeError, match=r"unet\.passes\.0\.quantize\.calibration: .* is of another model \(ffffffffffff"):
        make(f"{{format: int8-weights, calibration: {tmp_path / 'unet.json'}}}")
    with pytest.raises(RecipeError, match="is of unet in int8-weights; this is unet in int8"):
        make(f"{{format: int8, calibration: {file}}}")


def test_a_bad_quantization_fails_the_check_by_name(make):
    with pytest.raises(ParityError) as caught:
        make("{format: int4-weights, keep: [], search: false}", checks=", limits: {unet.onnx: 35}", name="bad")
    lines = str(caught.value).splitlines()
    failed = next(line for line in lines if "FAIL" in line)
    assert "passes → onnx" in failed
    assert "quantize: int4-weights" in failed
    assert lines.index("unet") < lines.index(failed) < lines.index("vae_decoder")


def test_the_fallback_keeps_the_better_one_and_says_so(make):
    options = "{format: int4-weights, keep: [], search: false, fallback: fp32}"
    bundle, verdicts = make(options, checks=", limits: {unet.onnx: 35}", name="fallen")
    assert bundle.manifest.parts["unet"].quantized is None
    assert not list(root(bundle).glob("calibration/*"))
    assert all(verdict.passed for verdict in verdicts)
    (note,) = [note for note in bundle.manifest.notes if "kept in fp32" in note]
    assert "because quantize: int4-weights is out of limits" in note


def test_what_is_not_faster_is_refused_with_the_figures(make, monkeypatch):
    monkeypatch.setattr(gate, "_race", lambda *_: ((0.012, 0.010), 0.83))
    said = r"unet: quantize: int8 is not faster on onnxruntime\.\n.*0\.83 times as fast \(12 ms"
    with pytest.raises(SpeedError, match=said) as e:
        make("{format: int8}", name="slow")
    assert "set gate: size, or fallback: fp32" in str(e.value)


def pair(**changes):
    return gate.Comparison(**{"target": "openvino", "size": 30, "plain_size": 100, "seconds": (1.0, 1.5), "ratio": 1.5,
                         "whole": 3, "steps": 9} | changes)  # fmt: skip


@pytest.mark.parametrize(
    ("gate", "changes", "wins"),
    [
        ("speed", {}, True), ("speed", {"ratio": 0.99}, False), ("size", {"ratio": 0.5}, True), ("size", {"size": 96}, False),
        ("speed", {"ratio": None, "seconds": None}, True), ("speed", {"ratio": None, "seconds": None, "size": 99}, False),
    ],
)  # fmt: skip
def test_a_gate_asks_for_one_thing(gate, changes, wins):
    assert pair(**changes).wins(gate) == wins


def test_an_engine_of_other_numbers_than_asked_is_refused():
    from exporter.passes.quantize import Quantize

    step = Quantize(format="int8")
    gate._audit("unet", step, pair(), [30, 100])
    with pytest.raises(UnsupportedError, match="holds wider numbers"):
        gate._audit("unet", step, pair(size=90), [30, 100])
    gate._audit("unet", step, pair(size=28, plain_size=50), [30, 100])  # a target that halves weights saves half as much
    with pytest.raises(UnsupportedError, match="holds wider numbers"):
        gate._audit("unet", step, pair(size=45, plain_size=50), [30, 100])
    with pytest.raises(UnsupportedError, match="none of the 9 steps of openvino's int8 engine computes in whole numbers"):
        gate._audit("unet", step, pair(whole=0), [30, 100])
    gate._audit("unet", Quantize(format="int8-weights"), pair(whole=0), [30, 100])


@pytest.mark.parametrize(
    ("options", "more", "error", "said"),
    [
        ("{format: fp8}", {"targets": "[openvino]"}, UnsupportedError, "openvino does not take fp8"),
        ("{format: fp8}", {"targets": "[tensorrt_rtx: {compute_capabilities: ['8.6']}]"}, UnsupportedError, "names 8.6"),
        ("{format: fp8}", {"targets": "[tensorrt_rtx]"}, UnsupportedError, "portable default"),
        ("{format: int8, fallback: fp16}", {}, RecipeError, "fallback: fp16, but unquantized the component is fp32"),
        ("{format: int8}", {"checks": ", skip: no time"}, RecipeError, "leave checks.skip out"),
        ("{format: int9}", {}, RecipeError, "no format 'int9'; did you mean 'int8'"),
        ("{format: nvfp4}", {}, RecipeError, "CUDA device"),
    ],
)
def test_what_cannot_be_is_said_before_time_is_spent(tiny_sdxl, options, more, error, said):
    given = {"targets": "[onnxruntime]", "checks": ""} | more
    with pytest.raises(error, match=said):
        Plan(Recipe.parse(RECIPE % (tiny_sdxl, options, given["targets"], given["checks"]), "x")).refuse()


def test_no_prompt_is_no_calibration(tiny_sdxl):
    text = (RECIPE % (tiny_sdxl, "{format: int8}", "[onnxruntime]", "")).replace("[a red circle, the blue square]", "[]")
    with pytest.raises(RecipeError, match="prompts"):
        Recipe.parse(text, "x")


def test_both_processors_tell_what_they_computed_in(small):
    bundle, _ = small
    entry = bundle.manifest.parts["unet"]
    files = [bundle.path(file) for file in entry.engines["onnxruntime"].files]
    from engines import plugins
    from exporter.reference.recording import load_cases

    inputs = load_cases(bundle.path("recordings/unet.npz"))[0].inputs
    steps = plugins.load("backends", "onnxruntime")().profile(files, entry.signature, inputs)
    assert {"Conv"} <= {step.operator for step in steps}
    assert all(step.seconds >= 0 for step in steps)
    assert OpenVino().refuse("int8") is None

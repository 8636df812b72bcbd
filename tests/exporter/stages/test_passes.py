"""Networks that passes remake: planned, kept as diffusers keeps them, and the reference of the pictures."""

import json

import numpy as np
import pytest

from engines.errors import RecipeError, UnsupportedError
from exporter.parity.compare import _part
from exporter.part import Case
from exporter.recipe.limits import Limits
from exporter.recipe.schema import Recipe
from exporter.reference.recording import load_run
from exporter.report import describe
from exporter.stages.plan import Plan
from exporter.stages.stage import Results
from exporter.stages.store import Store

RECIPE = """
model: {source: %s}
sampler: {scheduler: EulerDiscreteScheduler, steps: [2], guidance: {mode: classifier_free, scale: 3.0}}
shapes: {height: [32, 32, 32], width: [32, 32, 32], batch: [1, 1, 1]}
components:
  unet: {passes: [prune: {blocks: {mid_block: null}}]}
checks: {prompts: [a red circle]}
"""


@pytest.fixture(scope="module")
def text(tiny_sdxl):
    return RECIPE % tiny_sdxl


def plan(text, *overrides):
    return Plan(Recipe.parse(text, "remade", overrides=overrides))


def names(chosen):
    return [f"{stage.verb} {stage.subject}" for stage in chosen.stages]


def test_the_pass_stands_before_what_needs_it(text):
    found = names(plan(text))
    order = ["record source", "pass unet, prune", "record passes", "measure unet", "export unet, opset 20"]
    assert [name for name in found if name in order] == order
    assert "record passes" not in names(plan(text, "components.unet.passes=[]"))
    unchecked = names(plan(text, "checks.skip=no time"))
    assert [name for name in unchecked if name in order] == ["pass unet, prune", "export unet, opset 20"]


def test_keys_follow_the_pass_and_leave_the_rest_alone(text):
    one, other = plan(text), plan(text, "components.unet.passes=[{prune: {blocks: {mid_block: {attention: none}}}}]")
    keys = [{f"{s.verb} {s.subject}": s.key.digest for s in each.stages} for each in (one, other)]
    changed = {name for name in keys[0] if keys[0][name] != keys[1][name]}
    assert changed == {"pass unet, prune", "record passes", "measure unet", "export unet, opset 20", "engine unet, onnxruntime"}


def test_the_pipeline_with_the_made_network_is_recorded(text, tmp_path):
    chosen, results = plan(text), Results(Store(tmp_path))
    folder = results[chosen.networks.of["unet"]["prune"]].folder
    assert json.loads((folder / "config.json").read_text())["mid_block_type"] is None
    source, made = (load_run(results[which].runs[0]) for which in (chosen.recorded, chosen.reference))
    assert np.array_equal(source.draws[0], made.draws[0])
    assert np.array_equal(source.model_inputs[0], made.model_inputs[0])
    assert not np.allclose(source.model_outputs[0], made.model_outputs[0], atol=1e-2)
    assert chosen.reference.name == ("record", "passes")
    # What the part does on the source's inputs is what the second recording saw, where the inputs are the same.
    first = results[chosen.parts["unet"].outputs].cases[0]
    assert np.allclose(first.source["model_output"], source.model_outputs[0])
    assert np.allclose(first.passes["model_output"], made.model_outputs[0], atol=1e-4)


def test_inspect_counts_the_made_network(text, tmp_path):
    found, before = (
        describe.recipe(Recipe.parse(text, "remade", overrides=overrides), Store(tmp_path))
        for overrides in ((), ("components.unet.passes=[]",))
    )
    unet, whole = (next(row for row in each["parts"] if row["part"] == "unet") for each in (found, before))
    assert unet["passes"] == "prune: a block map, not distilled"
    assert int(unet["parameters"].replace(",", "")) < int(whole["parameters"].replace(",", ""))
    assert float(unet["G multiply-adds"]) <= float(whole["G multiply-adds"])


def test_what_a_pass_cannot_do_is_said_before_time_is_spent(text):
    with pytest.raises(UnsupportedError, match="has no such block"):
        plan(text, "components.unet.passes=[{prune: {blocks: {down_blocks.7: null}}}]").refuse()


@pytest.mark.parametrize(("part", "kind"), [("text_encoder", "CLIPTextModel"), ("vae_decoder", "AutoencoderKL")])
def test_what_is_no_unet_is_told_by_the_name_of_its_class(text, part, kind):
    with pytest.raises(UnsupportedError, match=f"prune knows UNet2DConditionModel alone, and this network is {kind}"):
        plan(text, f"components.{part}.passes=[{{prune: {{preset: bk-sdm-base}}}}]").refuse()


def test_a_pass_stands_once(text):
    with pytest.raises(RecipeError, match="stands twice"):
        plan(text, "components.unet.passes=[{prune: {preset: bk-sdm-base}}, {prune: {preset: bk-sdm-base}}]")


@pytest.mark.parametrize(
    ("own", "passed", "limit"), [({}, True, {}), ({"passes": 90.0}, True, {}), ({"unet.passes": 90.0}, False, {"psnr": 90.0})]
)
def test_the_distance_of_a_remade_part_is_limited_by_the_recipe_alone(own, passed, limit):
    class Entry:
        passes, precision, remade, engines, onnx = ("prune: x", "not distilled"), "bf16", True, {}, {"20": None}

    case = Case("a", {}, {"out": np.linspace(0, 1, 9)}, {"out": np.linspace(1, 0, 9)})
    verdict = next(iter(_part(None, "unet", Entry, [case], None, Limits(own))))
    assert (verdict.passed, verdict.limit, verdict.note) == (passed, limit, "prune: x, not distilled, bf16")
    broken = Case("a", {}, case.source, {"out": np.full(9, np.nan)})
    assert not next(iter(_part(None, "unet", Entry, [broken], None, Limits(own)))).passed

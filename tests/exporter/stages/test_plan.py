"""What a build will do, told stage by stage before anything is loaded."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from engines.backends.tensorrt import Tensorrt
from engines.errors import RecipeError, UnsupportedError
from tests.exporter.stages.planned import RECIPE, changed, names, plan

ALL = (
    "components.unet.passes=[{prune: {blocks: {mid_block: null}}}]",
    "components.vae_decoder.passes=[{quantize: {format: int8, gate: size}}]",
    "components.text_encoder.precision=mixed",
    "components.vae_encoder.target=openvino",
)
FUSED = "pipeline=fused", "shapes.batch=[1, 1, 1]", "shapes.height=[512, 512, 512]", "shapes.width=[512, 512, 512]"
MIXED, UNSEEN = "components.unet.precision=mixed", "checks.skip=no time"
PARTS = "text_encoder", "vae_decoder", "unet"
TABLES = ["tokenize tokenizer", "compile 2 steps", "compile 4 steps", "process scheduler"]


def part(name, *engines, measure=True):
    return [f"measure {name}"] * measure + [f"export {name}, opset 20", *(f"engine {name}, {each}" for each in engines)]


def test_a_plain_recipe_stage_by_stage():
    assert names(plan().stages) == [
        *TABLES, "record source", *part("text_encoder", "onnxruntime"), *part("vae_decoder", "onnxruntime"),
        *part("unet", "onnxruntime"),
    ]  # fmt: skip


def test_with_a_pass_a_quantized_part_islands_and_a_target_of_its_own():
    found = names(plan(*ALL).stages)
    assert found == [
        "tokenize tokenizer", "compile 2 steps", "compile 4 steps", "compile 2 steps from an image",
        "compile 4 steps from an image", "process scheduler", "record source", "pass unet, prune", "record passes",
        "islands text_encoder", *part("text_encoder", "onnxruntime"),
        *part("vae_decoder"), "calibrate vae_decoder, opset 20", "quantize vae_decoder, opset 20",
        "engine vae_decoder, onnxruntime", "rival vae_decoder, onnxruntime", "weigh vae_decoder",
        *part("vae_encoder", "openvino"), *part("unet", "onnxruntime"),
    ]  # fmt: skip


def test_engines_for_gpus_by_name_come_before_what_gathers_them(monkeypatch):
    monkeypatch.setattr(Tensorrt, "distributions", ("onnx",))
    found = plan(UNSEEN, "targets=[tensorrt: {compute_capabilities: ['9.0', '8.9']}]")
    engines = [stage for stage in found.stages if stage.verb == "engine"]
    assert names(engines)[:3] == [f"engine text_encoder, tensorrt{each}" for each in (" 8.9", " 9.0", "")]
    assert [stage.elsewhere and stage.elsewhere.gpu for stage in engines[:3]] == ["8.9", "9.0", None]
    assert set(engines[:2]) == set(engines[2].needs)
    fused = plan(*FUSED, UNSEEN, "targets=[tensorrt: {compute_capabilities: ['9.0', '8.9']}]")
    assert names(fused.stages)[-3:] == [f"engine pipeline_4, tensorrt{each}" for each in (" 8.9", " 9.0", "")]


@pytest.mark.parametrize("overrides", [(), ALL, FUSED])
def test_each_stage_has_one_name_and_comes_after_what_it_needs(overrides):
    stages = plan(*overrides).stages
    assert len(set(names(stages))) == len(stages)
    for number, stage in enumerate(stages):
        assert set(stage.needs) <= set(stages[:number]), stage.name


def test_without_checks_nothing_is_recorded_or_measured():
    chosen = plan(UNSEEN)
    assert (chosen.recorded, chosen.reference) == (None, None)
    assert names(chosen.stages)[len(TABLES) :] == [
        *part("text_encoder", "onnxruntime", measure=False), *part("vae_decoder", "onnxruntime", measure=False),
        *part("unet", "onnxruntime", measure=False),
    ]  # fmt: skip


def test_pictures_are_held_to_the_source_unless_passes_make_another_network():
    assert (chosen := plan()).reference is chosen.recorded
    other = plan(ALL[0])
    assert other.reference.name == ("record", "passes")
    assert other.networks.last["unet"] in other.reference.needs


def test_the_same_recipe_has_the_same_keys():
    assert changed(plan(*ALL), plan(*ALL)) == set()


@pytest.mark.parametrize(
    ("override", "stages"),
    [
        ("components.text_encoder.precision=fp16", {"measure text_encoder", *part("text_encoder", "onnxruntime")}),
        ("targets=[{onnxruntime: {threads: 3}}]", {f"engine {name}, onnxruntime" for name in PARTS}),
        ("checks.limits.image=20.0", set()),  # what the stages before the check do not read
        ("checks.prompts=[a blue square]", {"record source", "measure text_encoder", "measure vae_decoder", "measure unet"}),
    ],
)  # fmt: skip
def test_what_a_change_of_the_recipe_does_again(override, stages):
    assert changed(plan(), plan(override)) == stages


def test_a_part_has_the_shared_targets_or_its_own():
    chosen = plan(
        "targets=[onnxruntime, {openvino: {precision: bf16}}]", "components.vae_decoder.target={onnxruntime: {threads: 2}}"
    )
    assert {name: list(targets) for name, targets in chosen.targets.items()} == {
        "text_encoder": ["onnxruntime", "openvino"], "unet": ["onnxruntime", "openvino"], "vae_decoder": ["onnxruntime"],
    }  # fmt: skip
    assert chosen.targets["vae_decoder"]["onnxruntime"].threads == 2
    assert chosen.targets["unet"]["openvino"].precision == "bf16"


def test_operator_sets_of_a_part_s_backends_each_once_and_in_order():
    chosen = plan()
    chosen.targets = {"unet": {name: SimpleNamespace(opset=opset) for name, opset in (("a", 22), ("b", 20), ("c", 22))}}
    assert chosen.opsets("unet") == (20, 22)


def test_a_fused_pipeline_has_engines_of_the_whole_alone():
    chosen = plan(*FUSED)
    assert chosen.pipelines == {"pipeline_2": 2, "pipeline_4": 4}
    assert names(chosen.stages)[-4:] == [
        "unroll pipeline_2, opset 20", "engine pipeline_2, onnxruntime", "unroll pipeline_4, opset 20",
        "engine pipeline_4, onnxruntime",
    ]  # fmt: skip
    assert all(not each.engines for each in chosen.parts.values())
    assert plan().wholes == {}


def test_the_last_stage_needs_every_other_and_knows_who_made_it():
    def last(chosen):
        return chosen.last_stage("check", _judge, Path, options={"a": 1}, makers=[])

    chosen = plan()
    assert set(last(chosen).needs) == set(chosen.stages)
    assert last(chosen).name == ("check", "bundle")
    assert last(chosen).key.digest == last(plan()).key.digest
    assert last(chosen).key.digest != last(plan("targets=[{onnxruntime: {threads: 3}}]")).key.digest
    other = chosen.last_stage("check", _judge, Path, options={"a": 2}, makers=[])
    assert other.key.digest != last(chosen).key.digest


def _judge(folder, results):
    """Judge nothing."""


def test_problems_of_model_sampler_and_shapes_are_said_at_once():
    with pytest.raises(RecipeError) as caught:
        plan("shapes.height=[500, 500, 500]", "components.transformer.precision=fp16", "sampler.scheduler=LCMScheduler")
    told = "\n".join(caught.value.problems)
    for part_of in ("shapes.height", "components.transformer", "LCMScheduler"):
        assert part_of in told


def test_limits_of_what_is_not_measured_are_a_problem():
    with pytest.raises(RecipeError, match="psrn"):
        plan("checks.limits.image={psrn: 20.0}")


@pytest.mark.parametrize(
    ("overrides", "error", "told"),
    [
        ((MIXED, UNSEEN), RecipeError, "components.unet.precision: mixed keeps in fp32"),
        (("components.unet.passes=[{prune: {blocks: {down_blocks.7: null}}}]",), UnsupportedError, "has no such block"),
        (("components.unet.passes=[{quantize: {format: int8}}]", UNSEEN), RecipeError, "is calibrated on what the source does"),
        (("components.unet.precision=bf16", "targets=[onnxruntime]"), UnsupportedError, "bf16"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_time_is_spent(overrides, error, told):
    chosen = plan(*overrides)
    with pytest.raises(error) as caught:
        chosen.refuse()
    assert told in str(caught.value)


def test_what_can_be_is_not_refused():
    plan(*ALL).refuse()


def test_planning_loads_nothing_heavy():
    heavy = {"torch", "diffusers", "transformers", "onnx", "onnx_ir", "openvino", "onnxruntime", "scipy"}
    program = (
        "import sys; from exporter.recipe.schema import Recipe; from exporter.stages.plan import Plan;"
        f"plan = Plan(Recipe.parse({RECIPE!r}, 'x', overrides={ALL!r})); plan.refuse(); plan.stages;"
        f"sys.exit(' '.join({heavy!r} & sys.modules.keys()) or None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3]
    )
    assert (done.returncode, done.stderr) == (0, "")

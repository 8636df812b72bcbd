import pytest

from engines.errors import RecipeError
from exporter.recipe.schema import Recipe
from exporter.stages import fused
from exporter.stages.plan import Plan
from exporter.stages.stage import Results
from exporter.stages.store import Store

RECIPE = """
model: {source: %s}
pipeline: fused
sampler: {scheduler: LCMScheduler, force: true, steps: [2, 4], guidance: {mode: classifier_free, scale: 3.0}}
shapes: {height: [32, 32, 32], width: [32, 32, 32], batch: [1, 1, 1]}
checks: {prompts: [a red circle]}
"""


def plan(tiny_sdxl, *overrides):
    return Plan(Recipe.parse(RECIPE % tiny_sdxl, "fused", overrides=overrides))


def names(chosen, *verbs):
    return [f"{stage.verb} {stage.subject}" for stage in chosen.stages if stage.verb in verbs]


def test_one_engine_for_each_number_of_steps(tiny_sdxl):
    assert names(plan(tiny_sdxl), "unroll", "engine") == [
        "unroll pipeline_2, opset 20",
        "engine pipeline_2, onnxruntime",
        "unroll pipeline_4, opset 20",
        "engine pipeline_4, onnxruntime",
    ]
    assert len(names(plan(tiny_sdxl, "pipeline=stepped"), "engine")) == 4


def test_keys_follow_graphs_and_sampler(tiny_sdxl):
    one, other = plan(tiny_sdxl), plan(tiny_sdxl, "sampler.steps=[4]", "sampler.step={}")
    first, second = ({stage.name: stage.key.digest for stage in each.stages} for each in (one, other))
    assert first["unroll", "pipeline_4, opset 20"] == second["unroll", "pipeline_4, opset 20"]
    changed = plan(tiny_sdxl, "components.unet.precision=fp16")
    third = {stage.name: stage.key.digest for stage in changed.stages}
    assert first["unroll", "pipeline_4, opset 20"] != third["unroll", "pipeline_4, opset 20"]


def test_all_noise_is_an_input(tiny_sdxl, tmp_path):
    chosen = plan(tiny_sdxl)
    table = Results(Store(tmp_path))[chosen.tables.samplers[4]].table
    signature = fused.signature(chosen.family, table)
    assert [port.name for port in signature.inputs] == ["tokenizer_ids", "tokenizer_2_ids", "noise", "guidance_scale"]
    assert signature.port("noise").shape == ("batch", 4, 4, "latent_height", "latent_width")  # LCM draws at every step


def test_every_problem_at_once(tiny_sdxl):
    wrong = (
        "shapes.height=[32, 64, 64]", "shapes.batch=[1, 1, 4]",
        "components={vae_encoder: {}, unet: {target: onnxruntime}}",
    )  # fmt: skip
    with pytest.raises(RecipeError) as error:
        plan(tiny_sdxl, *wrong)
    told = str(error.value)
    for part in ("shapes.height: [32, 64, 64] is a range", "write [1, 1, 1]", "components.unet.target", "components.vae_encoder"):
        assert part in told

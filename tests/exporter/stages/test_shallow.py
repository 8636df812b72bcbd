import pytest

from engines.errors import RecipeError
from exporter.recipe.schema import Recipe
from exporter.stages.plan import Plan

RECIPE = """
model: {source: SOURCE}
sampler: {scheduler: EulerDiscreteScheduler, steps: [9], cache: {every: 3}, guidance: {mode: classifier_free, scale: 3.0}}
shapes: {height: [16, 32, 48], width: [16, 32, 48], batch: [1, 1, 2]}
components: {unet: {UNET}}
targets: [onnxruntime, openvino]
checks: {prompts: [a red circle]}
"""


def plan(source, unet="", *overrides):
    return Plan(Recipe.parse(RECIPE.replace("SOURCE", str(source)).replace("UNET", unet), "cached", overrides=overrides))


def test_the_shallow_part_is_cut_out_of_the_whole_ones_graph_for_the_same_targets(tiny_sdxl):
    made = plan(tiny_sdxl, "target: openvino")
    stages = {(stage.verb, stage.subject.partition(",")[0]): stage for stage in made.stages}
    assert stages["cut", "unet_shallow"].needs == (stages["export", "unet"],)
    assert [name for verb, name in stages if verb == "engine" and "unet" in name] == ["unet", "unet_shallow"]
    assert stages["engine", "unet_shallow"].subject == "unet_shallow, openvino"
    assert set(stages["engine", "unet_shallow"].needs) == {stages["cut", "unet_shallow"], stages["export", "unet"]}
    assert ("export", "unet_shallow") not in stages
    order = [stage.name for stage in made.stages]
    assert order.index(stages["export", "unet"].name) < order.index(stages["cut", "unet_shallow"].name)


def test_depth_and_schedule_are_in_the_keys_that_they_change(tiny_sdxl):
    def keys(*overrides):
        return {stage.name: stage.key.digest for stage in plan(tiny_sdxl, "", *overrides).stages}

    one, other = keys(), keys("sampler.cache={every: 4}")
    changed = {name for name in one if one[name] != other[name]}
    assert {("compile", "9 steps"), ("record", "source")} <= changed
    assert not {name for name in changed if name[0] in {"export", "cut", "engine"}}


@pytest.mark.parametrize(
    ("unet", "told"),
    [
        ("passes: [quantize: {format: int8}]", "components.unet.passes: quantize is of whole graphs; with sampler.cache leave"),
        ("precision: mixed", "components.unet.precision: mixed looks for operations.*write fp32, fp16 or bf16"),
    ],
)
def test_what_only_a_whole_graph_can_have_is_refused(tiny_sdxl, unet, told):
    with pytest.raises(RecipeError, match=told):
        plan(tiny_sdxl, unet)


def test_a_depth_beyond_the_outermost_blocks_is_refused(tiny_sdxl):
    with pytest.raises(RecipeError, match="depth 4 is deeper than the outermost blocks of this UNet; what fits: 0"):
        plan(tiny_sdxl, "", "sampler.cache.depth=4")

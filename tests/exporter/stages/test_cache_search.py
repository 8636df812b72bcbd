import pytest

from engines.errors import RecipeError
from exporter.recipe.schema import Recipe
from exporter.report import describe
from exporter.stages.cache_search import FoundSchedule
from exporter.stages.plan import Plan
from exporter.stages.stage import Results
from exporter.stages.store import Store
from tests.exporter.stages.planned import names

RECIPE = """
model: {source: SOURCE}
sampler: {scheduler: EulerDiscreteScheduler, steps: [9], cache: {floor: 30 dB}, guidance: {mode: classifier_free, scale: 3.0}}
shapes: {height: [16, 32, 48], width: [16, 32, 48], batch: [1, 1, 2]}
checks: {prompts: [a red circle]}
"""


def plan(source, *overrides, text=RECIPE):
    return Plan(Recipe.parse(text.replace("SOURCE", str(source)), "searched", overrides=overrides))


def decided(made, tmp_path, **found):
    folder = tmp_path / "found"
    folder.mkdir()
    FoundSchedule(folder).write({"whole": [1, 4], "depth": 0, "share": 0.3, "psnr": [31.5], **found})
    results = Results(Store(tmp_path / "store"))
    results.put(made.search, folder)
    return made.decided(results)


def test_until_a_schedule_is_found_a_plan_holds_the_search_alone_and_says_so(tiny_sdxl, tmp_path):
    made = plan(tiny_sdxl)
    assert names(made.stages) == ["search step caching"]
    assert made.notes[0].startswith("sampler.cache: floor 30 dB is searched first, on 9 steps of 1 prompt, at depth 0; the")
    assert made.asked.sampler.cache.floor == 30
    assert describe.dry_run(made, Store(tmp_path))["notes"][0] == made.notes[0]


def test_what_is_found_is_written_into_the_recipe_as_a_plain_schedule(tiny_sdxl, tmp_path):
    made = decided(plan(tiny_sdxl), tmp_path)
    plain = plan(tiny_sdxl, "sampler.cache={whole: [1, 4], depth: 0}")
    assert {stage.name: stage.key.digest for stage in made.stages} == {stage.name: stage.key.digest for stage in plain.stages}
    assert Recipe.parse(made.recipe.text, "again").sampler == plain.recipe.sampler
    assert made.notes[0] == (
        "sampler.cache: floor 30 dB was searched, and is cache: {whole: [1, 4], depth: 0}: 0.300 of the denoiser's "
        "multiply-adds, the image at least 31.5 dB from the uncached"
    )
    assert made.decided(Results(Store(tmp_path))) is made


def test_what_a_search_hangs_on_is_in_its_key(tiny_sdxl):
    def key(*overrides):
        return plan(tiny_sdxl, *overrides).search.key.digest

    assert key("sampler.cache={floor: 30}") == key()
    assert key("sampler.force=true") == key("checks.limits={caching: 20}") == key("targets=[openvino]") == key()
    others = ("sampler.cache={floor: 29}", "sampler.cache={budget: 0.5}", "sampler.steps=[10]", "checks.seed=1")
    others += ("checks.prompts=[x]",)
    others += ("sampler.guidance.scale=4", "sampler.guidance.interval=[0, 0.5]", "shapes.height=[32, 32, 32]")
    assert len({key(), *map(key, others)}) == 1 + len(others)


def test_the_networks_that_passes_make_are_made_before_the_search(tiny_sdxl):
    made = plan(tiny_sdxl, f"components.unet.passes=[{{swap: {{source: {tiny_sdxl}}}}}]")
    assert names(made.stages) == ["pass unet, swap", "search step caching"]
    assert made.search.needs == (made.stages[0],)


def test_a_pass_that_looks_at_recordings_is_refused(tiny_sdxl):
    with pytest.raises(RecipeError, match=r"components.unet.passes: prune looks at what is recorded with the cache.*every: 3"):
        plan(tiny_sdxl, "components.unet.passes=[{prune: {search: {budget: 0.8}}}]")


def test_what_step_caching_refuses_is_refused_before_the_search(tiny_sdxl):
    with pytest.raises(RecipeError, match=r"components.unet.precision: mixed looks for operations.*"):
        plan(tiny_sdxl, "components.unet.precision=mixed")

"""Combinations of levels become recipes; what is equal is one, and what cannot be says why."""

import pytest

from engines.errors import RecipeError, UnsupportedError
from exporter.cluster.resources import Resources
from exporter.sweep import points as module
from exporter.sweep.points import BASE, LEFT, count, plan_digest, points
from exporter.sweep.spec import load
from tests.exporter.sweep.test_spec import RECIPE, SWEEP


@pytest.fixture
def read(tmp_path):
    def call(text, recipe=RECIPE):
        (tmp_path / "base.yaml").write_text(recipe)
        (tmp_path / "sweep.yaml").write_text(text)
        return load(tmp_path / "sweep.yaml")

    return call


def test_the_base_is_first_and_knows_its_levels(read):
    asked = read(SWEEP)
    found = points(asked)
    assert (count(asked), len(found)) == (8, 9)  # the base has neither of the schedulers
    assert found[0].levels == {"sampler.scheduler": BASE, "network": "whole", "run.steps": "4"}
    assert (found[0].assignments, found[0].name) == ((), "base")
    last = found[-1]
    assert last.levels == {"sampler.scheduler": "DDIMScheduler", "network": "bf16", "run.steps": "2"}
    assert last.assignments == ('sampler.scheduler="DDIMScheduler"', 'components.unet.precision="bf16"')
    assert last.recipe.component("unet").precision == "bf16"
    assert last.run.steps == 2
    assert last.name == "DDIMScheduler · bf16 · steps 2"


def test_a_level_that_the_base_has_is_not_built_twice(read):
    found = points(read(SWEEP, RECIPE.replace("{steps", "{scheduler: DDIMScheduler, steps")))
    assert found[0].levels["sampler.scheduler"] == "DDIMScheduler"
    assert len(found) == 8
    assert found[0].levels["run.steps"] == "4"  # which is what the bundle does by itself
    whole = [point for point in found if point.levels["network"] == "whole" and point.levels["run.steps"] == "2"]
    assert [point.assignments for point in whole] == [('sampler.scheduler="EulerDiscreteScheduler"',), ()]


def test_points_that_run_alike_share_a_result_and_those_of_a_recipe_a_bundle(read):
    found = {point.name: point for point in points(read(SWEEP))}
    four, two = found["DDIMScheduler · bf16"], found["DDIMScheduler · bf16 · steps 2"]
    assert four.bundle == two.bundle
    assert four.digest != two.digest
    assert len({point.bundle for point in found.values()}) == 5
    assert len({point.digest for point in found.values()}) == 9


def test_points_for_other_machines_are_built_and_measured_apart(read):
    text = SWEEP.replace("whole: {}", "whole: {}\n    ada: {resources.gpu: '8.9'}") + "resources: {cpus: 2}\n"
    found = {point.name: point for point in points(read(text))}
    base, ada = found["base"], found["DDIMScheduler · ada"]
    assert (base.resources, base.levels["network"]) == (Resources(cpus=2), "whole")
    assert ada.resources == Resources(cpus=2, gpu="8.9")
    whole = found["DDIMScheduler"]
    assert (ada.assignments, ada.recipe) == (whole.assignments, whole.recipe)
    assert ada.bundle != whole.bundle
    assert ada.digest != whole.digest
    wrong = {point.name: point for point in points(read(SWEEP.replace("whole: {}", "x: {resources.gpu: fast}\n    whole: {}")))}
    assert wrong["DDIMScheduler · x"].problem.startswith("resources.gpu: 'fast' is no compute capability")


def test_a_result_without_wishes_for_a_machine_is_found_under_its_old_name(read):
    (base, *_) = points(read(SWEEP))
    plain = {"recipe": base.recipe.model_dump(mode="json")}
    assert (base.bundle, base.digest) == (
        module.digest(plain),
        module.digest({**plain, "run": base.run.model_dump(mode="json")}),
    )


def test_what_is_no_recipe_says_why_and_the_others_stay(read):
    text = SWEEP.replace("[4, 2]", "[4, none]").replace("{}", "{sampler.steps: [0]}").replace("whole", "no steps")
    found = {point.name: point for point in points(read(text))}
    wrong = found["DDIMScheduler · no steps · none"]
    assert wrong.recipe is None
    assert "run.steps: must be a whole number, not 'none'" in wrong.problem
    assert "sampler.steps[0]: must be at least 1, not 0" in wrong.problem
    assert plan_digest(wrong) == ""
    assert not found["DDIMScheduler · bf16"].problem


def test_a_base_or_a_grid_that_is_no_recipe_is_refused(read):
    with pytest.raises(RecipeError, match="must be at least 1"):
        points(read(SWEEP, RECIPE.replace("[4]", "[0]")))
    with pytest.raises(RecipeError, match=r"none of the 8 points is a recipe(?s:.*)unknown scheduler|must be"):
        points(read(SWEEP.replace("[4, 2]", "[a, b]")))


def test_an_axis_that_is_left_out_stays_and_one_that_another_sets_is_left_to_it(read):
    text = SWEEP.replace("bf16}", "bf16, sampler.scheduler: LCMScheduler}")
    found = points(read(f"{text}points: [{{network: bf16}}, {{network: bf16, sampler.scheduler: DDIMScheduler}}]\n"))
    own, other = found[1:]
    assert own.levels == {"sampler.scheduler": LEFT, "network": "bf16", "run.steps": "4"}
    assert own.recipe.sampler.scheduler == "LCMScheduler"
    assert other.recipe.sampler.scheduler == "LCMScheduler"  # axes set in the file's order
    assert own.name == "bf16"


@pytest.mark.parametrize("own", ["", "components: {unet: {passes: [sparsify: {}]}}\n"])
def test_a_list_may_go_behind_the_one_that_another_axis_or_the_base_has(read, own):
    text = SWEEP.replace("{components.unet.precision: bf16}", "{components.unet.passes: [prune: {preset: koala-700m}]}")
    text = text.replace("run.steps: [4, 2]", "format: {fp32: {}, int8: {components.unet.passes+: [quantize: {format: int8}]}}")
    found = {point.name: point for point in points(read(text, f"{RECIPE}{own}"))}
    both, one = found["DDIMScheduler · bf16 · int8"], found["DDIMScheduler · int8"]
    assert [list(step) for step in both.recipe.component("unet").passes] == [["prune"], ["quantize"]]
    assert [list(step) for step in one.recipe.component("unet").passes] == [*([["sparsify"]] if own else []), ["quantize"]]


def test_what_a_level_sets_around_an_axis_is_left_to_it(read):
    text = SWEEP.replace("{components.unet.precision: bf16}", "{sampler: {scheduler: LCMScheduler, steps: [2]}}")
    own = points(read(f"{text}points: [{{network: bf16}}]\n"))[1]
    assert own.levels == {"sampler.scheduler": LEFT, "network": "bf16", "run.steps": LEFT}


def test_an_axis_is_left_where_each_of_its_levels_is_about_what_another_sets(read):
    cache = "cache: {none: {}, some: {sampler.steps: [25], sampler.cache: {every: 3}}}"
    text = SWEEP.replace("run.steps: [4, 2]", f"run.steps: [4, 2]\n  {cache}")
    text = text.replace("bf16:", "own: {sampler: {steps: [9]}}\n    bf16:")
    grids = "[{run.steps: 2}, {cache: some}, {network: own}, {sampler.scheduler: DDIMScheduler}]"
    found = points(read(f"{text}points: {grids}\n"))
    assert [tuple(point.levels.values()) for point in found[1:]] == [
        (BASE, "whole", "2", "none"),  # a step that is run takes nothing from how it is built
        (BASE, "whole", LEFT, "some"),
        (LEFT, "own", LEFT, LEFT),
        ("DDIMScheduler", "whole", "4", "none"),  # one level of the networks alone speaks of it
    ]


def test_changes_of_the_base_are_in_every_point(read):
    found = points(read(SWEEP.replace("axes:", "set: {sampler.steps: [4, 2], sampler.scheduler: LCMScheduler}\naxes:")))
    assert found[0].assignments == ("sampler.steps=[4, 2]", 'sampler.scheduler="LCMScheduler"')
    assert all(point.recipe.sampler.steps == (4, 2) for point in found)
    assert found[-1].assignments[0] == "sampler.steps=[4, 2]"
    assert 'sampler.scheduler="DDIMScheduler"' in found[-1].assignments
    assert len([each for each in found[-1].assignments if "scheduler" in each]) == 1


def test_many_points_must_be_meant(read, monkeypatch):
    asked = read(SWEEP)
    monkeypatch.setattr(module, "MANY", 7)
    with pytest.raises(
        UnsupportedError, match=r"sweep has 8 points, more than 7\. Name fewer, let search: {points: 100} choose among them, or"
    ):
        points(asked)
    assert len(points(asked, many=True)) == 9


def test_the_plan_of_a_point_is_that_of_its_weights_and_options(read, tiny_sd):
    text = SWEEP.replace("[EulerDiscreteScheduler, DDIMScheduler]", "[EulerDiscreteScheduler]")
    found = points(read(text, RECIPE.replace("source: x", f"source: {tiny_sd}")))
    named = {point.name: point for point in found}
    whole, bf16 = named["EulerDiscreteScheduler"], named["EulerDiscreteScheduler · bf16"]
    assert plan_digest(whole) == plan_digest(whole) != plan_digest(bf16) != ""
    assert plan_digest(points(read(text))[1]) == ""  # there is no model of that name


def test_what_hangs_on_a_search_is_in_the_plan_of_a_point_too(read, tiny_sd):
    text = SWEEP.replace("[EulerDiscreteScheduler, DDIMScheduler]", "[EulerDiscreteScheduler]").replace("[4, 2]", "[9]")
    found = points(read(text, RECIPE.replace("source: x", f"source: {tiny_sd}").replace("[4]", "[9], cache: {budget: 0.5}")))
    named = {point.name: point for point in found}
    whole, bf16 = named["EulerDiscreteScheduler"], named["EulerDiscreteScheduler · bf16"]
    assert plan_digest(whole) == plan_digest(whole) != plan_digest(bf16) != ""


def test_a_scale_that_the_recipe_has_by_itself_is_the_base(read):
    recipe = RECIPE.replace("{steps", "{guidance: {mode: classifier_free, scale: 3.0, pag: {scale: 2.0}}, steps")
    text = SWEEP[: SWEEP.index("axes:")] + "axes:\n  run.pag_scale: [0.0, 2.0]\n" + SWEEP[SWEEP.index("measures:") :]
    found = points(read(text, recipe))
    assert [(point.levels["run.pag_scale"], point.run.pag_scale) for point in found] == [("2.0", None), ("0.0", 0.0)]
    assert found[0].is_base

import pytest

from engines.errors import RecipeError
from engines.samplers.table import Eval, Table
from exporter.recipe.sampling import CacheOptions, GuidanceOptions, SamplerOptions
from exporter.schedulers.step_plan import planned, planned_starts
from tests.engines import small


def options(steps=4, **guidance):
    return SamplerOptions(steps=(steps,), guidance=GuidanceOptions(mode="classifier_free", scale=3.0, **guidance))


def shares(ops):
    return [op.guided for op in ops if isinstance(op, Eval)]


def test_a_table_says_at_which_evaluations_guidance_is_on(tmp_path):
    table = planned(small.table(4), options(interval=(0.25, 0.75)))
    assert shares(table.ops) == [0, 1, 1, 0]
    table.dump(tmp_path / "4.json")
    assert Table.load(tmp_path / "4.json") == table
    assert '"format": 3' in (tmp_path / "4.json").read_text()


def test_without_such_options_a_table_is_what_it_was():
    table, starts = small.table(4), small.starts(4)
    assert planned(table, options()) is table
    assert planned_starts(starts, options()) is starts


def test_a_start_from_an_image_keeps_the_guidance_of_its_steps():
    starts = planned_starts(small.starts(4), options(interval=(0.25, 0.75)))
    assert shares(starts.alone) == [0, 1, 1, 0]
    assert [shares(ops) for ops in starts.starts] == [[0, 1, 1, 0], [1, 1, 0], [1, 0], [0]]


def test_a_scheduler_with_more_evaluations_than_steps_has_as_many_scales():
    with pytest.raises(RecipeError, match="has 3 scales, and this scheduler evaluates the network 4 times"):
        planned(small.table(4), options(3, scales=(3.0, 2.0, 1.0)))


def wholes(ops):
    return [op.shallow is None for op in ops if isinstance(op, Eval)]


def test_a_table_that_caches_is_whole_at_its_first_step_and_at_every_so_many():
    asked = SamplerOptions(steps=(9,), cache=CacheOptions(every=4))
    table = planned(small.table(9), asked)
    assert [index for index, whole in enumerate(wholes(table.ops)) if whole] == [0, 4, 8]
    starts = planned_starts(small.starts(9), asked)
    assert wholes(starts.alone) == wholes(table.ops)
    assert [index for index, whole in enumerate(wholes(starts.starts[3])) if whole] == [0, 4]
    plain = planned_starts(small.starts(9), SamplerOptions(steps=(9,), cache=CacheOptions(whole=(1, 6))))
    assert [[index for index, whole in enumerate(wholes(ops)) if whole] for ops in plain.starts[:3]] == [[0, 5], [0, 4], [0, 3]]


def test_where_guidance_begins_a_whole_step_computes_both_branches():
    asked = options(9, interval=(0.25, 0.8)).model_copy(update={"cache": CacheOptions(every=4)})
    table = planned(small.table(9), asked)
    assert shares(table.ops) == [0, 0, 1, 1, 1, 1, 1, 0, 0]
    assert [index for index, whole in enumerate(wholes(table.ops)) if whole] == [0, 2, 6]

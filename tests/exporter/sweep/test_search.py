"""A search on a sweep whose figures follow from the levels: what is chosen, how often, and what becomes of it."""

import itertools
import math
import random
import sys
from dataclasses import replace

import pytest

from engines.errors import MissingDependency
from exporter.sweep.points import Combinations, count
from exporter.sweep.result import Measured, PointResult
from exporter.sweep.search import PointSearch
from exporter.sweep.spec import SearchOptions, load

RECIPE = """\
model: {source: x}
sampler: {scheduler: EulerDiscreteScheduler, steps: [25], guidance: {mode: classifier_free, scale: 7.5}}
shapes: {height: [32, 32, 64], width: [32, 32, 64]}
"""
SWEEP = """\
recipe: base.yaml
axes:
  run.steps: [25, 20, 16, 12, 10, 8, 6, 5, 4, 3, 2, 1]
  sampler.guidance.scale: [1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 7.5, 8.0, 9.0]
  sampler.scheduler: [EulerDiscreteScheduler, DDIMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler]
search: {points: 60, seed: 3}
constraints: [latency < 1 s]
measures: {prompts: [a, b], scores: [psnr]}
"""


@pytest.fixture
def asked(tmp_path):
    (tmp_path / "base.yaml").write_text(RECIPE)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    return load(tmp_path / "sweep.yaml")


def figures(point):
    """Quality and seconds: more steps are better and slower, a middling scale is best, and so is one scheduler."""
    steps = int(point.levels["run.steps"])
    scale = float(point.levels["sampler.guidance.scale"])
    quality = 40 - 20 / steps - (scale - 5.0) ** 2 + 3 * ("UniPC" in point.levels["sampler.scheduler"])
    return quality, 0.1 * steps


def answered(point):
    quality, seconds = figures(point)
    measured = Measured(
        seconds=(seconds,),
        base_seconds=(2.5,),
        memory=1,
        evaluations=1,
        multiply_adds=1,
        scores={"psnr": (quality,)},
        pictures=(),
    )
    return PointResult(plan="p", task="t", measured=measured)


def searched(asked, answer=answered, width=1, most=60):
    made = Combinations(asked)
    chooser = PointSearch(asked, asked.search, made)
    chooser.tell(made.base, answer(made.base))
    found = []
    while chosen := chooser.ask(min(width, most - len(found))):
        for point in chosen:
            chooser.tell(point, answer(point))
        found += chosen
    return found


def test_no_point_is_chosen_twice_and_the_same_results_lead_to_the_same_choices(asked):
    found = searched(asked)
    assert len({point.digest for point in found}) == len(found) == 60
    assert [point.name for point in searched(asked)] == [point.name for point in found]
    other = replace(asked, search=SearchOptions(points=60, seed=4))
    assert [point.name for point in searched(other)] != [point.name for point in found]


def area(found):
    """What lies below the front of quality over the logarithm of speed."""
    total, best = 0.0, 0.0
    for speed, quality in sorted(((2.5 / seconds, quality) for quality, seconds in map(figures, found)), reverse=True):
        total += max(0.0, quality - best) * math.log(speed / 0.9)
        best = max(best, quality)
    return total


def test_what_was_measured_leads_to_the_front(asked):
    free = replace(asked, constraints=())
    made = Combinations(free)
    everything = [made.point(dict(zip(free.axes, levels, strict=True))) for levels in itertools.product(*free.axes.values())]
    blind = random.Random(0).sample(everything, 60)  # noqa: S311
    missed, chance = (1 - area(found) / area(everything) for found in (searched(free), blind))
    assert missed < 0.02
    assert missed < chance / 3


def test_points_beyond_the_constraints_are_left(asked):
    slow = [figures(point)[1] >= 1 for point in searched(asked)]
    free = [figures(point)[1] >= 1 for point in searched(replace(asked, constraints=()))]
    assert sum(slow[20:]) < sum(free[20:])


def test_all_are_tried_where_the_search_may_try_more(asked):
    few = replace(asked, axes={"run.steps": asked.axes["run.steps"]}, grids=({"run.steps": asked.grids[0]["run.steps"]},))
    found = searched(few, lambda _: PointResult(plan="p", task="t", failed="build"), most=1000)
    assert {point.levels["run.steps"] for point in found} == {*few.axes["run.steps"]} - {"25"}  # which is the base
    assert count(few) == 12


def test_several_are_chosen_at_once(asked):
    found = searched(asked, width=4, most=24)
    assert len({point.digest for point in found}) == 24


def test_without_optuna_it_says_what_to_install(asked, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingDependency, match=r"pip install 't2iexport\[search\]'"):
        PointSearch(asked, asked.search, Combinations(asked))

"""What points say together, on figures that are known."""

import pytest

from exporter.sweep.compare import PointComparison
from exporter.sweep.points import Point
from exporter.sweep.quantities import QUANTITIES, Constraint, score_quantity
from exporter.sweep.result import PointResult
from exporter.sweep.run import SweptPoint
from exporter.sweep.spec import RunOptions
from tests.exporter.sweep.test_result import BUILT, MEASURED

KNOWN = {**QUANTITIES, "right": score_quantity("prompts right", higher_is_better=True)}
WORSE = {**QUANTITIES, "right": score_quantity("prompts wrong", higher_is_better=False)}


def point(seconds, scores, memory=1000, **levels):
    measured = MEASURED.model_copy(
        update={"seconds": (seconds,), "base_seconds": (1.0,), "memory": memory, "scores": {"right": scores} if scores else {}}
    )
    result = PointResult(plan="p", task="t", build=BUILT, measured=measured)
    return SweptPoint(Point("point", levels or {"axis": f"{seconds}"}, (f"seconds={seconds}",), None, RunOptions()), result)


def shares(right, total=100):
    return tuple([1.0] * right + [0.0] * (total - right))


def test_the_front_holds_those_that_no_other_beats():
    slow, quick, beaten, small = (
        point(2.0, shares(95)),
        point(1.0, shares(90)),
        point(1.5, shares(90)),
        point(1.5, shares(90), memory=500),
    )
    assert PointComparison([slow, quick, beaten, small], "right", KNOWN).front() == (slow, quick, small)
    assert PointComparison([slow, quick, beaten, small], "right", KNOWN).front(["latency"]) == (slow, quick)
    assert PointComparison([slow, quick], "right", WORSE).front() == (quick,)


def test_the_best_and_the_quickest_that_is_not_known_to_be_worse():
    best, alike, worse = point(2.0, shares(95)), point(0.5, shares(94)), point(0.1, shares(50))
    found = PointComparison([best, alike, worse], "right", KNOWN).choice([])
    assert (found.best, found.quickest, found.alike) == (best, alike, 1)
    found = PointComparison([best, alike, worse], "right", WORSE).choice([])
    assert (found.best, found.quickest, found.alike) == (worse, worse, 0)


def test_what_is_quick_is_told_by_the_base_in_the_same_rounds():
    best, slowed = point(2.0, shares(95)), point(3.0, shares(94))
    others = slowed.result.measured.model_copy(update={"base_seconds": (9.0,)})  # the machine was busy, for both
    slowed = SweptPoint(slowed.point, slowed.result.model_copy(update={"measured": others}))
    assert PointComparison([best, slowed], "right", KNOWN).choice([]).quickest is slowed


def test_a_choice_keeps_every_constraint():
    best, other = point(2.0, shares(95), memory=10), point(0.5, shares(50), memory=2000)
    compared = PointComparison([best, other], "right", KNOWN)
    quick, small = Constraint.parse("latency < 1 s", KNOWN), Constraint.parse("memory < 1 kB", KNOWN)
    assert compared.choice([quick]).best is other
    assert compared.choice([small]).best is best
    assert compared.choice([quick, small]).best is None


def grid():
    """Half the network costs 10 of 100 and halves the time; few steps cost 20, and take a tenth."""
    found = {}
    for network in ("whole", "half"):
        for steps in ("25", "4"):
            seconds = (2.0 if network == "whole" else 1.0) * (1 if steps == "25" else 0.1)
            right = 90 - 10 * (network == "half") - 20 * (steps == "4")
            found[network, steps] = point(seconds, shares(right), network=network, steps=steps)
    return found


def test_a_choice_that_is_surely_worse_than_the_base_says_so():
    base, near, far = point(2.0, shares(95)), point(0.5, shares(93)), point(0.1, shares(50))
    for_speed = [Constraint.parse("latency < 200 ms", KNOWN)]
    found = PointComparison([base, near, far], "right", KNOWN)
    assert not found.choice([]).below  # the base itself
    assert found.choice(for_speed).below
    assert not PointComparison([base, near], "right", KNOWN).choice([Constraint.parse("latency < 1 s", KNOWN)]).below
    assert not PointComparison([base, near, far], "right", WORSE).choice(for_speed).below
    unscored = point(2.0, None)
    assert not PointComparison([unscored, far], "right", KNOWN).choice(for_speed).below


def test_an_effect_is_the_mean_over_pairs_that_differ_in_its_axis_alone():
    found = PointComparison(grid().values(), "right", KNOWN).effects()
    told = {(each.axis, each.level, each.against, each.quantity): (each.mean, each.pairs) for each in found}
    assert told == {
        ("network", "half", "whole", "right"): (pytest.approx(-0.1), 2),
        ("network", "half", "whole", "latency"): (pytest.approx(0.5), 2),
        ("steps", "4", "25", "right"): (pytest.approx(-0.2), 2),
        ("steps", "4", "25", "latency"): (pytest.approx(0.1), 2),
    }
    assert found[0].interval == pytest.approx((-0.1, -0.1))


def test_an_effect_of_one_pair_has_no_interval_and_a_base_without_score_counts_for_latency_alone():
    points = grid()
    points.pop(("half", "4"))
    points["whole", "25"] = point(2.0, None, network="whole", steps="25")
    found = PointComparison(points.values(), "right", KNOWN).effects()
    assert {(each.axis, each.quantity, each.pairs, each.interval) for each in found} == {
        ("network", "latency", 1, None),
        ("steps", "latency", 1, None),
    }


def test_the_way_from_the_base_takes_the_smallest_steps_and_keeps_the_quality():
    points = grid()
    compared = PointComparison(points.values(), "right", KNOWN)
    base, end = points["whole", "25"], points["half", "4"]
    assert compared.path(base, end) == (base, points["half", "25"], end)  # not by 4 steps, which cost more
    points.pop(("half", "25"))
    assert PointComparison(points.values(), "right", KNOWN).path(base, end) == (base, points["whole", "4"], end)
    points.pop(("whole", "4"))
    assert PointComparison(points.values(), "right", KNOWN).path(base, end) == (base, end)
    assert compared.path(base, base) == (base,)

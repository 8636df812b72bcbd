import itertools

import numpy as np
import pytest

from engines.samplers.table import Emit
from exporter.caching import schedules
from tests.engines import small


def test_influence_is_what_an_answer_changes_in_the_final_latent():
    random, toy = np.random.default_rng(0), small.table(4)
    table = toy.model_copy(update={"ops": (*toy.ops[:-1], Emit(row=(1.0, 0.5, -2.0, 0.25, 3.0)))})
    answers = random.standard_normal((4, 1, 1, 1, 1)).astype(np.float32)

    def final(given):
        left = iter(given)
        return table.play(lambda *_, **__: next(left), lambda: np.ones((1, 1, 1, 1), np.float32)).item()

    found = schedules.influence(table)
    assert list(found) == [0.5, -2, 0.25, 3]
    for index, weight in enumerate(found):
        changed = answers.copy()
        changed[index] += 1
        assert final(changed) - final(answers) == pytest.approx(weight, abs=1e-5)


def error(between, whole):
    return sum(between[start, end] for start, end in itertools.pairwise((*whole, len(between))))


@pytest.mark.parametrize("seed", range(4))
def test_the_best_of_every_cost_is_that_of_all_that_can_be(seed):
    random, count = np.random.default_rng(seed), 8
    costs = [int(cost) for cost in random.integers(1, 3, count)]
    between = random.random((count, count + 1)) * 4
    for start in range(count):
        between[start, start + 1] = 0  # nothing lies between
        between[start, start + 5 :] = np.inf  # too far
    found = schedules.best(between, costs)
    every = [
        whole for size in range(1, count) for rest in itertools.combinations(range(1, count), size - 1) if (whole := (0, *rest))
    ]
    known = np.inf
    for cost in range(sum(costs)):
        least = min((error(between, whole) for whole in every if sum(costs[step] for step in whole) == cost), default=np.inf)
        assert (cost in found) == (least < known), cost
        if cost in found:
            assert error(between, found[cost]) == pytest.approx(least)
            known = least
    assert found


def test_even_schedules_are_every_so_many_where_that_fits():
    found = schedules.even(9)
    assert found[2] == (0, 3, 6)
    assert [len(whole) for whole in found] == list(range(1, 9))
    assert all(whole[0] == 0 and len(set(whole)) == len(whole) for whole in found)


@pytest.mark.parametrize(
    ("depths", "tried"),
    [(range(2), [0, 1]), (range(3), [0, 1, 2]), (range(4), [0, 1]), (range(18), [0, 1, 3, 7]), (range(56), [0, 1, 3, 7, 15])],
)
def test_of_many_depths_a_few_are_tried(depths, tried):
    assert schedules.tried(depths) == tried

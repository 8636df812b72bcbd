"""Best-of-N over groups of the same pictures."""

import numpy as np

from tools.demo.best_of import best_of


def test_of_each_group_the_one_of_the_highest_reward_counts():
    rewards = np.array([[1.0, 2.0, 4.0, 3.0], [9.0, 8.0, 7.0, 6.0]])
    right = np.array([[0.0, 1.0, 0.0, 1.0], [0.0, 1.0, 1.0, 1.0]])
    found = {number: [each.tolist() for each in best_of(rewards, right, number)] for number in (1, 2, 4)}
    assert found[1] == [[2.5, 7.5], [0.5, 0.75]]
    assert found[2] == [[3.0, 8.0], [0.5, 0.5]]
    assert found[4] == [[4.0, 9.0], [0.0, 0.0]]

"""Best-of-N over groups of the same pictures."""

import numpy as np

from tools.demo.best_of import best_of


def test_of_each_group_the_one_of_the_highest_reward_counts():
    rewards = np.array([[1.0, 2.0, 4.0, 3.0], [9.0, 8.0, 7.0, 6.0]])
    right = np.array([[0.0, 1.0, 0.0, 1.0], [0.0, 1.0, 1.0, 1.0]])
    assert best_of(rewards, right, 1).tolist() == [0.5, 0.75]
    assert best_of(rewards, right, 2).tolist() == [0.5, 0.5]
    assert best_of(rewards, right, 4).tolist() == [0.0, 0.0]

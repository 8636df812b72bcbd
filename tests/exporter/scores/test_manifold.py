"""Which rows lie among others: the definition, ball by ball, also over more rows than are looked at together."""

import numpy as np
import pytest
import scipy.spatial

from engines.errors import UnsupportedError
from exporter.scores import _manifold
from exporter.scores._manifold import covered


@pytest.mark.parametrize("neighbours", [1, 3])
def test_a_row_is_covered_by_the_balls_of_others(neighbours, monkeypatch):
    monkeypatch.setattr(_manifold, "_TOGETHER", 7)
    dice = np.random.default_rng(0)
    rows, others = dice.normal(size=(60, 4)) * 1.5, dice.normal(size=(25, 4))
    reach = np.sort(scipy.spatial.distance.cdist(others, others), axis=1)[:, neighbours]
    wanted = [any(np.linalg.norm(row - other) <= ball for other, ball in zip(others, reach, strict=True)) for row in rows]
    found = covered(rows, others, neighbours)
    assert 5 < found.sum() < 55
    assert found.tolist() == wanted
    assert covered(others, others, neighbours).all()


def test_neighbours_that_are_not_there_are_asked_for():
    with pytest.raises(UnsupportedError, match="3 pictures have no 3 neighbours each"):
        covered(np.eye(3), np.eye(3), 3)

"""Recall: pictures of a narrow kind lie among those of a wide kind, and do not reach all of them."""

import numpy as np

from exporter import scores
from exporter.parity.intervals import interval
from tests.exporter.scores import seen


def test_it_is_a_share_that_tells_narrow_from_wide(tmp_path):
    seen.save_network(tmp_path / "few.pt")
    narrow, wide = seen.pictures(30, 0, low=150), seen.pictures(40, 1)
    score = scores.load("recall", {"model": "few.pt"}, tmp_path)
    assert (score.higher_is_better, score.compares) == (True, True)
    inside, outside = score.of(narrow, [""] * 30, wide), score.of(wide, [""] * 40, narrow)
    assert set(inside) | set(outside) == {0.0, 1.0}
    assert (len(inside), len(outside)) == (40, 30)  # as many as there are others
    assert np.mean(inside) < np.mean(outside) - 0.3
    low, high = interval(inside)
    assert 0 <= low < np.mean(inside) < high or np.mean(inside) == 1  # Wilson's

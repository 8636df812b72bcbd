"""KID: torchmetrics' own number over one subset of everything."""

import numpy as np
import pytest
from torchmetrics.image.kid import KernelInceptionDistance

from exporter import scores
from tests.exporter.scores import seen


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save")
def test_it_is_torchmetrics_number_on_the_same_network(tmp_path):
    network = seen.save_network(tmp_path / "few.pt")
    own, others = seen.pictures(20, 0), seen.pictures(20, 1, low=60)
    theirs = KernelInceptionDistance(feature=seen.Asked(network, return_features=True), subsets=1, subset_size=20)
    for images, real in ((others, True), (own, False)):
        theirs.update(seen.tensor(images), real=real)
    score = scores.load("kid", {"model": "few.pt"}, tmp_path)
    assert (score.higher_is_better, score.compares) == (False, True)
    found = score.of(own, [""] * 20, others)
    assert len(found) == 20
    assert np.mean(found) > 0.01
    assert np.mean(found) == pytest.approx(float(theirs.compute()[0]), abs=1e-5)
    assert scores.notes(score, 20) == [
        "KID: 20 pictures against the reference's of the same prompts and noise, seen by few.pt, resized inside few.pt."
    ]

"""Inception score: torchmetrics' own number, a classifier of transformers, and how sure it is."""

import numpy as np
import pytest
from torchmetrics.image.inception import InceptionScore

from engines.errors import UnsupportedError
from exporter import scores
from exporter.scores.inception_score import shares
from tests.exporter import models
from tests.exporter.scores import seen


class Logits(seen.Asked):
    """Of which torchmetrics makes the probabilities itself."""

    def forward(self, img):
        return super().forward(img).log()


@pytest.mark.filterwarnings("ignore:Metric `InceptionScore` will save", "ignore:std")
def test_it_is_torchmetrics_number_on_the_same_network(tmp_path):
    network = seen.save_network(tmp_path / "few.pt")
    images = seen.pictures(20, 0)
    classes = seen.features(network, images, no_output_bias=True)
    theirs = InceptionScore(feature=Logits(network, no_output_bias=True), splits=1)
    theirs.update(seen.tensor(images))
    score = scores.load("inception_score", {"model": "few.pt"}, tmp_path)
    assert (score.higher_is_better, score.compares) == (True, False)
    found = score.of(images, [""] * 20, None)
    assert 1.05 < np.mean(found) < 5
    assert np.mean(found) == pytest.approx(float(theirs.compute()[0]), rel=1e-4)
    assert np.mean(found) == pytest.approx(np.exp((classes * np.log(classes / classes.mean(0))).sum(1).mean()))
    assert scores.notes(score, 20) == ["Inception score: 20 pictures in one part, seen by few.pt, resized inside few.pt."]


def test_it_takes_a_classifier_of_transformers(tmp_path):
    models.save_classifier(tmp_path / "eye")
    found = scores.load("inception_score", {"model": "eye"}, tmp_path).of(seen.pictures(6, 0), [""] * 6, None)
    assert 1 <= np.mean(found) <= 3
    models.save_dual_encoder(tmp_path / "pair")
    with pytest.raises(UnsupportedError, match="pair holds no image classifier"):
        scores.load("inception_score", {"model": "pair"}, tmp_path)


def test_the_numbers_say_how_far_other_pictures_would_lead():
    found, told = seen.spread(shares, 200, lambda count, seed: np.random.default_rng(seed).dirichlet([0.3, 0.5, 1.0], count))
    assert told == pytest.approx(found, rel=0.2)
    assert shares(np.eye(4)).mean() == pytest.approx(4)  # sure of each, and all classes are there

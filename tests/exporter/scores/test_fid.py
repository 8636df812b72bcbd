"""FID: scipy's closed form, torchmetrics' own on the same network, how sure it is, and what it says of its protocol."""

import numpy as np
import pytest
import scipy.linalg
from torchmetrics.image.fid import FrechetInceptionDistance

from exporter import scores
from exporter.scores.fid import shares
from tests.exporter.scores import seen


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("fid")


@pytest.fixture(scope="module")
def network(root):
    return seen.save_network(root / "few.pt")


def closed(own, others):
    one, other = np.cov(own.T), np.cov(others.T)
    apart = own.mean(0) - others.mean(0)
    return apart @ apart + np.trace(one + other - 2 * scipy.linalg.sqrtm(one @ other).real)


def test_the_mean_of_the_numbers_is_the_closed_form():
    dice = np.random.default_rng(0)
    own, others = dice.normal(size=(40, 6)) @ dice.normal(size=(6, 6)), 2 + dice.normal(size=(30, 6))
    assert shares(own, others).mean() == pytest.approx(closed(own, others), rel=1e-6)
    assert shares(own, own).mean() == pytest.approx(0, abs=1e-6)
    one, other = np.array([[0.0], [2.0]]), np.array([[5.0], [9.0]])  # two normal distributions of one dimension, by hand
    assert shares(one, other).mean() == pytest.approx(36 + (np.sqrt(2) - np.sqrt(8)) ** 2)


def test_fewer_pictures_than_features_have_a_distance_too():
    dice = np.random.default_rng(1)
    own, others = dice.normal(size=(4, 9)), dice.normal(size=(50, 9))
    values = np.maximum(np.linalg.eigvals(np.cov(own.T) @ np.cov(others.T)).real, 0)
    apart = own.mean(0) - others.mean(0)
    wanted = apart @ apart + np.trace(np.cov(own.T)) + np.trace(np.cov(others.T)) - 2 * np.sqrt(values).sum()
    assert shares(own, others).mean() == pytest.approx(wanted, rel=1e-6)


def test_it_is_torchmetrics_number_on_the_same_network(root, network):
    own, others = seen.pictures(24, 0), seen.pictures(24, 1, low=90)
    theirs = FrechetInceptionDistance(feature=seen.Asked(network, return_features=True), input_img_size=(3, 16, 16))
    for images, real in ((others, True), (own, False)):
        theirs.update(seen.tensor(images), real=real)
    score = scores.load("fid", {"model": "few.pt"}, root)
    assert (score.higher_is_better, score.compares) == (False, True)
    found = score.of(own, [""] * 24, others)
    assert len(found) == 24
    assert np.mean(found) == pytest.approx(float(theirs.compute()), rel=1e-4)
    assert np.mean(found) == pytest.approx(
        closed(*(seen.features(network, each, return_features=True) for each in (own, others))), rel=1e-4
    )


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_the_numbers_say_how_far_other_pictures_would_lead(shift):
    others = np.random.default_rng(9).normal(size=(2000, 3))
    scale = np.array([1.0, 2.0, 0.5])
    found, told = seen.spread(
        lambda own: shares(own, others), 200, lambda n, seed: shift + scale * np.random.default_rng(seed).normal(size=(n, 3))
    )
    assert told == pytest.approx(found, rel=0.2)


def test_it_says_its_protocol_and_that_few_pictures_raise_it(root, network):  # noqa: ARG001 - its file
    told = scores.notes(scores.load("fid", {"model": "few.pt"}, root), 24)
    assert told[0] == (
        "FID: 24 pictures against the reference's of the same prompts and noise, seen by few.pt, resized inside few.pt."
    )
    assert told[1].startswith("FID of 24 pictures is too high")
    assert len(scores.notes(scores.load("fid", {"model": "few.pt"}, root), 10_000)) == 1

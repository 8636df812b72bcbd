"""Sets of pictures held against others: a folder's, or the reference's; and what is refused before anything is drawn."""

import numpy as np
import pytest
from PIL import Image

from engines.errors import RecipeError, UnsupportedError
from exporter import scores
from exporter.models.feature_network import FeatureNetwork
from exporter.scores._sets import FeatureSets
from tests.exporter.scores import seen


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    made = tmp_path_factory.mktemp("sets")
    seen.save_network(made / "few.pt")
    (made / "real").mkdir()
    for number, side in enumerate((16, 20, 24)):
        Image.fromarray(seen.pictures(1, number, side=side)[0]).save(made / "real" / f"{number}.png")
    return made


def test_a_folder_stands_for_the_reference(root):
    score = FeatureSets.model_validate({"model": "few.pt", "reference": "real"}, context={"root": root})
    assert not score.compares
    own = seen.pictures(4, 9)
    mine, others = score.seen(own, None)
    alone = [score._network.features(np.array(Image.open(root / "real" / f"{number}.png"))[None]) for number in range(3)]
    np.testing.assert_array_equal(others, np.concatenate(alone))
    np.testing.assert_array_equal(mine, score._network.features(own))
    assert (
        "against the 3 of real, seen by few.pt" in scores.load("kid", {"model": "few.pt", "reference": "real"}, root).notes(4)[0]
    )


def test_what_others_are_held_against_is_seen_once(root, tmp_path, monkeypatch):
    looks = []
    true = FeatureNetwork.features

    def features(self, images):
        looks.append(len(images))
        return true(self, images)

    monkeypatch.setattr(FeatureNetwork, "features", features)
    own, base = seen.pictures(4, 9), seen.pictures(4, 8)
    given = {"folder": ({"model": "few.pt", "reference": "real"}, None), "base": ({"model": "few.pt"}, base)}
    for name, (options, reference) in given.items():
        plain = scores.load("fid", options, root).of(own, ["", "", "", ""], reference)
        first = scores.load("fid", options, root, tmp_path / name).of(own, ["", "", "", ""], reference)
        looks.clear()
        # Another score of the same network finds it too.
        again = scores.load("fid", options, root, tmp_path / name).of(own, ["", "", "", ""], reference)
        scores.load("kid", options, root, tmp_path / name).of(own, ["", "", "", ""], reference)
        assert looks == [4, 4]
        assert plain == first == again
        assert [file.suffix for file in (tmp_path / name).iterdir()] == [".npy"]
    changed = base.copy()
    changed[0, 0, 0] ^= 255
    scores.load("fid", {"model": "few.pt"}, root, tmp_path / "base").of(own, ["", "", "", ""], changed)
    assert len(list((tmp_path / "base").iterdir())) == 2


def test_other_pictures_or_weights_are_another_score(root, tmp_path):
    digests = {scores.digest("fid", {"model": "few.pt", **given}, root) for given in ({}, {"reference": "real"})}
    seen.save_network(tmp_path / "few.pt", seed=1)
    digests.add(scores.digest("fid", {"model": "few.pt"}, tmp_path))
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ({}, RecipeError, r"fid\.model: .*missing"),
        ({"model": "none.pt"}, RecipeError, r"fid\.model: 'none.pt' is neither"),
        ({"model": "few.pt", "reference": "none"}, UnsupportedError, "none has 0 pictures; it takes two"),
    ],
)
def test_what_is_not_there_is_told_at_once(root, given, error, told):
    with pytest.raises(error, match=told):
        scores.load("fid", given, root)


def test_one_picture_is_no_set(root):
    with pytest.raises(UnsupportedError, match="FID is told of many pictures, and there is one"):
        scores.load("fid", {"model": "few.pt"}, root).of(seen.pictures(1, 0), [""], seen.pictures(1, 1))

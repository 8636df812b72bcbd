"""What a reward is made of is found by its name, whichever kind it is, and found again by its folder's own words."""

import shutil

import pytest

from engines.errors import RecipeError, UnsupportedError
from engines.reward import RewardManifest
from exporter import reward
from exporter.reward import folder as module
from exporter.reward.cosine import CosineReward
from exporter.reward.preference import PreferenceReward
from tests.exporter import models
from tests.exporter.models import image_rewards

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    made = tmp_path_factory.mktemp("rewards")
    models.save_dual_encoder(made / "pair")
    image_rewards.save(made / "tiny")
    return made


@pytest.mark.parametrize(
    ("name", "kind"), [("pair", CosineReward), ("tiny", PreferenceReward), ("tiny/ImageReward.pt", PreferenceReward)]
)
def test_a_name_says_which_kind(root, name, kind):
    found = reward.find(name, None, None, root)
    assert isinstance(found, kind)
    assert found.place.is_relative_to(root / name.partition("/")[0])


def test_an_unknown_name(root):
    with pytest.raises(RecipeError, match="'no such' is neither a folder"):
        reward.find("no such", None, None, root)


def test_it_is_found_again_from_elsewhere(root, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    about, _ = module.make("tiny/ImageReward.pt", root / "judges" / "mine", ["onnxruntime"], processor=None, revision=None)
    monkeypatch.chdir(tmp_path)
    assert reward.source_of(about, root / "judges" / "mine").digest == about.source["digest"]
    moved = shutil.copytree(root / "judges" / "mine", tmp_path / "mine")
    with pytest.raises(RecipeError, match=r"'tiny/ImageReward\.pt' is neither a folder"):
        reward.source_of(RewardManifest.of(moved), moved)
    image_rewards.save(tmp_path / "tiny", seed=1)
    with pytest.raises(UnsupportedError, match=r"ImageReward\.pt holds other networks than those that .*mine was made of"):
        reward.source_of(about, moved)

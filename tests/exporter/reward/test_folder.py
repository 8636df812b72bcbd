"""A reward's folder: the score's own numbers on engines without torch, or nothing."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from engines.errors import ParityError, UnsupportedError
from engines.reward import Reward
from exporter import cli, scores
from exporter.reward import folder as module
from exporter.reward.cosine import CosineReward
from tests.exporter import models
from tests.exporter.models import image_rewards

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    made = tmp_path_factory.mktemp("rewards")
    models.save_dual_encoder(made / "pair")
    return made


@pytest.fixture(scope="module")
def judge(root):
    with pytest.raises(SystemExit) as ended:
        cli.main(["reward", str(root / "pair"), "-o", str(root / "judge")])
    assert ended.value.code == 0
    return root / "judge"


def test_its_numbers_are_the_clip_scores(root, judge):
    images = np.random.default_rng(1).integers(0, 256, (3, 20, 16, 3)).astype(np.uint8)
    texts = ["a red circle", "a star", "nothing"]
    wanted = scores.load("clip", {"model": "pair"}, root).of(images, texts, None)
    with Reward.open(judge) as opened:
        found = opened.scores([Image.fromarray(each) for each in images], texts)
        assert (opened.about.name, opened.about.off < 0.1) == ("judge", True)
    np.testing.assert_allclose(found, wanted, atol=0.05)
    assert np.ptp(found) > 1


def test_numbers_that_are_not_the_sources_are_not_written(root, monkeypatch):
    monkeypatch.setattr(CosineReward, "limit", 0.0)
    with pytest.raises(ParityError, match=r"from the source's, and 0\.0 is allowed; nothing was written"):
        module.make(str(root / "pair"), root / "off", ["onnxruntime"], processor=None, revision=None)
    assert sorted(path.name for path in root.iterdir() if "off" in path.name) == []


def test_what_is_not_a_rewards_is_not_replaced(root, tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(UnsupportedError, match="is no reward's folder, so it is not replaced"):
        module.make(str(root / "pair"), tmp_path, ["onnxruntime"], processor=None, revision=None)


def test_what_lies_beside_a_reward_is_its_owners(root, judge):
    mine = judge / "notes" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(UnsupportedError, match=r"mine\.txt is not of the reward that lies there"):
        module.make(str(root / "pair"), judge, ["onnxruntime"], processor=None, revision=None)
    assert mine.read_text() == "mine"
    shutil.rmtree(mine.parent)
    before = json.loads((judge / "reward.json").read_text())["files"]
    module.make(str(root / "pair"), judge, ["onnxruntime"], processor=None, revision=None)
    assert json.loads((judge / "reward.json").read_text())["files"] == before
    assert [path.name for path in judge.parent.iterdir() if "partial" in path.name] == []


def test_pictures_that_are_prepared_otherwise_are_refused(root, tmp_path):
    folder = shutil.copytree(root / "pair", tmp_path / "pair")
    file = next(path for name in ("processor_config.json", "preprocessor_config.json") if (path := folder / name).is_file())
    told = json.loads(file.read_text())
    told.get("image_processor", told)["do_center_crop"] = False
    file.write_text(json.dumps(told))
    with pytest.raises(UnsupportedError, match=r"crop none\. Those of a reward are resized to one size"):
        module.make(str(folder), tmp_path / "judge", ["onnxruntime"], processor=None, revision=None)


def test_an_image_reward_is_one_too(root, tmp_path, capsys):
    image_rewards.save(root / "tiny")
    with pytest.raises(SystemExit) as ended:
        cli.main(["reward", str(root / "tiny" / "ImageReward.pt"), "-o", str(tmp_path / "liked")])
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip().endswith("at most, of a reward whose standard deviation is near 1")
    images = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    texts = ["a red circle", "the star of the blue squares", "nothing " * 40]
    wanted = scores.load("image_reward", {"model": "tiny"}, root).of(images, texts, None)
    with Reward.open(tmp_path / "liked") as opened:
        found = opened.scores([Image.fromarray(each) for each in images], texts)
        assert (opened.about.tokenizer.mask, opened.about.tokenizer.length) == ("prompt_mask", 35)
    np.testing.assert_allclose(found, wanted, atol=0.01)
    assert np.ptp(found) > 1

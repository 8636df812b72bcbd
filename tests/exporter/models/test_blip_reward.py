"""ImageReward, found and read: the numbers of the package `image-reward` on the same weights, pictures and texts."""

import numpy as np
import pytest
from PIL import Image

from engines.errors import RecipeError, UnsupportedError
from exporter.models import blip_reward, hub
from exporter.models.blip_reward import BlipReward
from tests.exporter.models import image_rewards

TEXTS = ("a red circle left of the blue squares", "a star", "Red STAR, 2 circles of nothing", "", "red " * 50)
#: Height and width.
SIDES = ((32, 32), (64, 64), (50, 75), (90, 41), (20, 20))
#: Of image-reward 1.5 under transformers 4.30.2, each picture with its text, and the first picture with each text.
WANTED = (-4.3491082191467285, 5.503601551055908, -4.976749420166016, 23.63080596923828, 1.801427960395813)
OF_ONE = (-4.3491082191467285, -11.417964935302734, -12.649620056152344, 2.4661643505096436, -5.757915496826172)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return image_rewards.save(tmp_path_factory.mktemp("reward") / "tiny")


def pictures():
    dice = np.random.default_rng(5)
    for height, width in SIDES:
        patches = dice.integers(0, 256, (5, 4, 3)).astype(np.uint8)
        yield np.asarray(Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC))


def test_its_numbers_are_its_packages(folder):
    reward = BlipReward.find("tiny", None, None, folder.parent)
    every = list(pictures())
    found = [float(reward.scores(each[None], [text])[0]) for each, text in zip(every, TEXTS, strict=True)]
    assert found == pytest.approx(WANTED, abs=2e-3)
    assert reward.scores(np.stack([every[0]] * len(TEXTS)), TEXTS) == pytest.approx(OF_ONE, abs=2e-3)


def test_it_is_known_by_its_file_or_its_config(folder, tmp_path, monkeypatch):
    assert BlipReward.find(str(folder / "ImageReward.pt"), None, None, tmp_path) == BlipReward.find(
        str(folder), None, None, tmp_path
    )
    asked = []
    monkeypatch.setattr(hub, "fetch_chosen", lambda name, *_: asked.append(name) or hub.Fetched(tmp_path, "c0ffee"))
    words = {
        "tiny": True,
        "tiny/ImageReward.pt": True,
        "tiny/vocab.txt": False,
        "there": False,
        "owner/reward": False,
        "no such": False,
    }
    (tmp_path / "there").mkdir()
    for name, is_one in words.items():
        root = tmp_path if name == "there" else folder.parent
        assert blip_reward.is_one(name, None, root) is is_one
    assert asked == ["owner/reward"]
    (tmp_path / "med_config.json").write_text("{}")
    assert blip_reward.is_one("owner/reward", None, folder.parent)


def test_of_the_hub_only_what_it_needs_is_fetched(tmp_path, monkeypatch):
    chosen, reader = [], image_rewards.save_tokenizer(tmp_path / "bert")
    bare = image_rewards.save(tmp_path / "bare", tokenizer=False)

    def fetch_chosen(name, revision, choose):
        files = ["README.md", "ImageReward.pt", "med_config.json", "other.pt"]
        chosen.append((name, revision, sorted(choose(files))))
        return hub.Fetched(bare, "c0ffee")

    def fetch_network(name, revision, _component, **more):
        chosen.append((name, revision, more["weights"]))
        return hub.Fetched(reader, "c0ffee")

    monkeypatch.setattr(hub, "fetch_chosen", fetch_chosen)
    monkeypatch.setattr(hub, "fetch_network", fetch_network)
    found = BlipReward.find("owner/reward", None, "v1", tmp_path)
    assert (found.weights, found.processor) == (bare / "ImageReward.pt", reader)
    assert chosen == [
        ("owner/reward", "v1", ["ImageReward.pt", "med_config.json"]),
        ("google-bert/bert-base-uncased", None, False),
    ]
    assert BlipReward.find("bare", "bert", None, tmp_path).digest == found.digest


def test_its_digest_is_of_all_that_it_judges_by(folder, tmp_path):
    digests = {BlipReward.find(str(folder), None, None, tmp_path).digest}
    image_rewards.save(tmp_path / "same")
    assert {BlipReward.find("same", None, None, tmp_path).digest} == digests
    for number, name in enumerate(("vocab.txt", "med_config.json", "ImageReward.pt")):
        image_rewards.save(tmp_path / str(number), seed=1 if name == "ImageReward.pt" else 0)
        if name != "ImageReward.pt":
            file = tmp_path / str(number) / name
            file.write_text(file.read_text() + "\n ")
        digests.add(BlipReward.find(str(number), None, None, tmp_path).digest)
    assert len(digests) == 4


def test_what_is_none(folder, tmp_path):
    with pytest.raises(RecipeError, match="model: 'no such' is neither a file or folder"):
        BlipReward.find("no such", None, None, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnsupportedError, match=r"empty is no ImageReward: there is no med_config\.json"):
        BlipReward.find("empty", None, None, tmp_path)
    (tmp_path / "empty" / "med_config.json").write_text("{}")
    with pytest.raises(UnsupportedError, match=r"has no weights of an ImageReward\. Take zai-org/ImageReward"):
        BlipReward.find("empty", None, None, tmp_path)
    for name in ("one.pt", "two.pt"):
        (tmp_path / "empty" / name).write_text("")
    with pytest.raises(UnsupportedError, match=r"several files of weights: one\.pt, two\.pt\. Name one"):
        BlipReward.find("empty", None, None, tmp_path)
    (tmp_path / "unread").mkdir()
    with pytest.raises(UnsupportedError, match=r"unread has no tokenizer\. Name the model that has it"):
        BlipReward.find(str(folder), "unread", None, tmp_path)

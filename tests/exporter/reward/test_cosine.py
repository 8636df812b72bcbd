"""A pair of encoders under a reward's contract: CLIP's score, and pictures prepared by the image processor's own words."""

import json
import shutil

import numpy as np
import pytest
import torch

from engines.errors import UnsupportedError
from exporter import reward, scores
from tests.exporter import models


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    made = tmp_path_factory.mktemp("rewards")
    models.save_dual_encoder(made / "pair")
    return made


def test_the_network_gives_clips_score(root):
    source = reward.find("pair", None, None, root)
    images = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)
    texts = ["a red circle", "a star"]
    wanted = scores.load("clip", {"model": "pair"}, root).of(images, texts, None)
    assert source.scores(images, texts) == pytest.approx(wanted, abs=1e-4)
    entry, _ = source.tokenizer()
    ids = source.encoder.opened[1].tokenizer(texts, padding="max_length", max_length=entry.length, return_tensors="pt").input_ids
    pixels = torch.from_numpy((images / 255 - source.image.preprocessing.mean) / source.image.preprocessing.std).float()
    with torch.no_grad():
        found = source.network()(pixels, ids)
    assert found.numpy() == pytest.approx(wanted, abs=1e-2)
    assert (entry.mask, entry.feeds) == (None, "prompt_ids")


def test_pictures_that_are_stretched(root, tmp_path):
    folder = shutil.copytree(root / "pair", tmp_path / "pair")
    file = next(path for name in ("processor_config.json", "preprocessor_config.json") if (path := folder / name).is_file())
    told = json.loads(file.read_text())
    told.get("image_processor", told).update(do_center_crop=False, size={"height": 12, "width": 16})
    file.write_text(json.dumps(told))
    image = reward.find("pair", None, None, tmp_path).image
    assert (image.shape, image.preprocessing.resize) == (("batch", 12, 16, 3), "stretch")
    told.get("image_processor", told).update(size={"shortest_edge": 12})
    file.write_text(json.dumps(told))
    with pytest.raises(UnsupportedError, match=r"crop none\. Those of a reward are resized to one size"):
        reward.find("pair", None, None, tmp_path).image  # noqa: B018 - asks

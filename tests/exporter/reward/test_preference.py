"""ImageReward under a reward's contract: the run time's tokenizer and picture are those of its own code."""

import numpy as np
import pytest
import torch

from engines.images import preprocess
from engines.tokenizer import TextTokenizer
from exporter import reward
from tests.exporter.models import image_rewards
from tests.exporter.models.test_blip_reward import TEXTS


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    made = image_rewards.save(tmp_path_factory.mktemp("reward") / "tiny")
    return reward.find(str(made), None, None, made)


def test_the_run_time_reads_prompts_as_bert_does(source, tmp_path):
    entry, spelled = source.tokenizer()
    (tmp_path / entry.file).write_text(spelled, encoding="utf-8")
    found = TextTokenizer.of(tmp_path / entry.file, entry).encode([*TEXTS, "[ENC] star"])
    wanted = source.judge.tokenizer([*TEXTS, "[ENC] star"], padding="max_length", truncation=True, max_length=35)
    assert found.ids.tolist() == wanted["input_ids"]
    assert found.mask.tolist() == wanted["attention_mask"]
    assert found.ids[-1, 1] == 18  # of [ENC], the last
    assert (entry.feeds, entry.mask, found.ids.shape[1]) == ("prompt_ids", "prompt_mask", 35)


def test_the_network_gives_its_scores(source):
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    read = source.judge.tokenizer(["a star", "the square"], padding="max_length", max_length=35, return_tensors="pt")
    assert source.image.shape == ("batch", 32, 32, 3)
    pixels = torch.from_numpy((images / 255 - source.image.preprocessing.mean) / source.image.preprocessing.std).float()
    with torch.no_grad():
        found = source.network()(pixels, read.input_ids, read.attention_mask)
    assert found.numpy() == pytest.approx(source.scores(images, ["a star", "the square"]), abs=1e-3)
    assert preprocess.plain(source.image, 32, 32).shape == (32, 32, 3)

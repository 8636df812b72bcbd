"""The reward that knows the demo's scenes: full for a scene of its prompt, less for what the checker refuses, with a gradient."""

import numpy as np
import pytest
import torch

from engines.tokenizer import TextTokenizer
from tools.demo.captions import caption
from tools.demo.scene_reward import SceneReward
from tools.demo.scenes import draw, training_scene
from tools.demo.train_reward import near_miss

SCENES = [training_scene(number) for number in range(40)]


@pytest.fixture(scope="module")
def rate(tmp_path_factory):
    """Pictures, uint8 or float tensors, and prompts → numbers."""
    reward, folder = SceneReward(), tmp_path_factory.mktemp("reward")
    entry, spelled = reward.tokenizer()
    (folder / entry.file).write_text(spelled, encoding="utf-8")
    reader, network = TextTokenizer.of(folder / entry.file, entry), reward.network()

    def rated(pictures, prompts):
        images = pictures if isinstance(pictures, torch.Tensor) else torch.from_numpy(np.stack(pictures)).float() / 255
        return network(images, torch.from_numpy(reader.encode(prompts).ids))

    return rated


def captions(scenes):
    return [caption(each, np.random.default_rng(number)) for number, each in enumerate(scenes)]


def test_a_scene_of_its_own_caption_has_all_and_a_near_miss_has_not(rate):
    pictures = [draw(each) for each in SCENES]
    own = rate(pictures, captions(SCENES))
    missed = rate(pictures, captions([near_miss(each, np.random.default_rng(number)) for number, each in enumerate(SCENES)]))
    assert own.min() > 95
    assert own.max() <= 100
    assert missed.max() < 92
    assert rate(pictures[3:4], captions(SCENES)[3:4]) == pytest.approx(own[3:4], abs=1e-3)


def test_a_step_along_its_gradient_mends_a_picture(rate):
    prompts, dice = captions(SCENES[:8]), torch.Generator().manual_seed(0)
    pictures = torch.from_numpy(np.stack([draw(each) for each in SCENES[:8]])).float() / 255
    spoilt = (0.8 * pictures + 0.2 * torch.rand(pictures.shape, generator=dice)).requires_grad_()
    before = rate(spoilt, prompts)
    before.sum().backward()
    assert before.max() < 95
    assert (rate(spoilt.detach() + 0.02 * spoilt.grad / spoilt.grad.abs().amax((1, 2, 3), keepdim=True), prompts) > before).all()

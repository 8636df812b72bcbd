"""A reward with a gradient is the reward: the same numbers as its engine's, of pictures of every size."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from engines.errors import RecipeError, UnsupportedError
from engines.images import preprocess
from engines.inputs import Input, Preprocessing
from engines.reward import Reward
from exporter.noise.torch_reward import TorchReward, prepared, resampling
from exporter.reward import folder as reward
from tests.exporter import models

pytest.importorskip("onnxruntime")
PROMPTS = ["a red circle", "a star"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder of encoders, of what prepares their inputs, and of their reward."""
    made = tmp_path_factory.mktemp("rewards")
    models.save_dual_encoder(made / "beside")
    (made / "pair").mkdir()
    for name in ("config.json", "model.safetensors"):
        (made / "beside" / name).rename(made / "pair" / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        reward.make("pair", made / "judges" / "mine", ["onnxruntime"], processor="beside", revision=None)
    return made


def blocks(height, width, seed=0):
    """Pictures without fine noise, which is grey to any network: uint8 (2, height, width, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (2, 4, 4, 3)).astype(np.uint8)
    return np.stack([np.asarray(Image.fromarray(each).resize((width, height))) for each in coarse])


@pytest.mark.parametrize(("size", "off"), [((16, 16), 0.05), ((64, 64), 4), ((40, 24), 4), ((10, 30), 4)])
def test_its_numbers_are_its_engines(root, size, off):
    """Where pictures are resized, the run time rounds them to bytes once more, which this network of random weights sees."""
    pictures = blocks(*size)
    found = TorchReward(root / "judges" / "mine").rate(PROMPTS)(torch.from_numpy(pictures).float() / 255)
    with Reward.open(root / "judges" / "mine") as judge:
        wanted = judge.scores([Image.fromarray(each) for each in pictures], PROMPTS)
    assert found.detach().numpy() == pytest.approx(wanted, abs=off)
    assert np.ptp(wanted) > 4 * off


def test_it_has_a_gradient_and_its_weights_have_none(root):
    judge = TorchReward(root / "judges" / "mine")
    images = torch.from_numpy(blocks(40, 24)).float().div(255).requires_grad_()
    judge.rate(PROMPTS)(images).sum().backward()
    assert images.grad.abs().sum((1, 2, 3)).min() > 0
    assert not any(each.requires_grad for each in judge._module.parameters())


def test_encoders_are_found_from_elsewhere_and_no_others_are_taken(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    TorchReward(root / "judges" / "mine")
    moved = shutil.copytree(root / "judges" / "mine", tmp_path / "mine")
    with pytest.raises(RecipeError, match="'pair' is neither a folder"):
        TorchReward(moved)
    models.save_dual_encoder(tmp_path / "pair", seed=1)
    (tmp_path / "beside").symlink_to(root / "beside")
    with pytest.raises(UnsupportedError, match="holds other networks than those"):
        TorchReward(moved)


@pytest.mark.parametrize("name", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("after", [7, 40])
def test_resampling_is_pils(name, after):
    line = np.random.default_rng(2).random(23).astype(np.float32)
    wanted = Image.fromarray(np.tile(line[:, None], (1, 5))).resize((5, after), Image.Resampling[name.upper()])
    assert resampling(23, after, name).numpy() @ line == pytest.approx(np.asarray(wanted)[:, 0], abs=1e-5)


@pytest.mark.parametrize("resize", ["stretch", "crop"])
def test_pictures_are_prepared_as_the_run_time_does(resize):
    asked = Preprocessing(resize=resize, resample="bicubic", invert=True, mean=(0.5, 0.4, 0.3), std=(0.25,))
    entry = Input(kind="image", shape=("batch", 12, 16, 3), preprocessing=asked)
    pictures = blocks(50, 31)
    wanted = np.stack([preprocess.fed("image", entry, Image.fromarray(each), 12, 16) for each in pictures])
    found = prepared(torch.from_numpy(pictures).float() / 255, entry).numpy()
    assert found == pytest.approx(wanted, abs=0.02)


def test_what_has_no_gradient_is_refused():
    for asked in (Preprocessing(resize="crop", binarize=True), Preprocessing(resize="none")):
        entry = Input(kind="image", shape=("batch", 12, 16, 3), preprocessing=asked)
        with pytest.raises(UnsupportedError, match=r"has no gradient\. Choose by generate --best-of"):
            prepared(torch.zeros(1, 10, 10, 3), entry)

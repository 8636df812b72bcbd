"""An ImageReward's network gives the numbers that its own package gives, and a file of something else is told as that."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from engines.errors import UnsupportedError
from exporter.models import blip_network
from tests.exporter.models import image_rewards


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return image_rewards.save(tmp_path_factory.mktemp("reward") / "tiny")


def given(batch=2):
    dice = np.random.default_rng(0)
    image = torch.from_numpy(dice.normal(size=(batch, image_rewards.SIDE, image_rewards.SIDE, 3)).astype(np.float32))
    ids = torch.from_numpy(dice.integers(5, 17, (batch, 9)))
    mask = torch.ones_like(ids)
    mask[:, 6:] = 0
    return image, ids, mask


def test_shapes_say_how_it_is_built(folder):
    network = blip_network.load(folder / "ImageReward.pt", image_rewards.config())
    vision, text = network.vision.config, network.text.config
    assert (network.side, vision.patch_size, vision.num_attention_heads, vision.num_hidden_layers) == (32, 8, 2, 2)
    assert (text.num_attention_heads, text.num_hidden_layers, text.encoder_hidden_size, text.vocab_size) == (2, 2, 128, 19)
    assert (vision.layer_norm_eps, text.layer_norm_eps) == (1e-6, 1e-12)
    assert blip_network.load(folder / "ImageReward.pt", {}).text.config.num_attention_heads == 1  # 64 numbers a head


def test_each_picture_is_judged_alone_and_padding_is_not_read(folder):
    network = blip_network.load(folder / "ImageReward.pt", image_rewards.config()).eval()
    image, ids, mask = given()
    with torch.no_grad():
        both = network(image, ids, mask)
        assert network(image[1:], ids[1:], mask[1:]) == pytest.approx(both[1:], abs=1e-4)
        other = torch.where(mask == 1, ids, 5)
        assert network(image, other, mask) == pytest.approx(both, abs=1e-4)
        assert network(image, ids, torch.ones_like(mask)) != pytest.approx(both, abs=0.1)
    assert both.shape == (2,)


def test_safetensors_of_the_same_names_are_read_too(folder, tmp_path):
    save_file(
        {name: torch.from_numpy(each).half() for name, each in image_rewards.tensors().items()}, tmp_path / "reward.safetensors"
    )
    with torch.no_grad():
        found, wanted = (
            blip_network.load(file, image_rewards.config()).eval()(*given())
            for file in (tmp_path / "reward.safetensors", folder / "ImageReward.pt")
        )
    assert found == pytest.approx(wanted, abs=0.3)
    assert found.dtype == torch.float32


def without(name):
    return {key: each for key, each in image_rewards.tensors().items() if key != name}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (without("mlp.layers.7.bias"), r"lacks 1 weights, head\.7\.bias"),
        (without("blip.visual_encoder.patch_embed.proj.weight"), "is no ImageReward"),
        (
            without("blip.text_encoder.encoder.layer.1.output.dense.bias"),
            r"lacks 1 weights, text\.encoder\.layer\.1\.output\.dense",
        ),
        (
            image_rewards.tensors() | {"blip.itm_head.weight": np.zeros(2, np.float32)},
            r"has of another network 1 weights, blip\.itm_head",
        ),
        (image_rewards.tensors() | {"mlp.layers.0.bias": np.zeros(2, np.float32)}, r"head\.0\.bias is \(2,\), not \(24,\)"),
        ({"unet.conv_in.weight": np.zeros(2, np.float32)}, "is no ImageReward"),
    ],
)
def test_a_file_of_another_network(content, told, tmp_path):
    torch.save({name: torch.from_numpy(each) for name, each in content.items()}, tmp_path / "ImageReward.pt")
    with pytest.raises(UnsupportedError, match=told):
        blip_network.load(tmp_path / "ImageReward.pt", image_rewards.config())


class Harm:
    """What a pickle would run when it is opened."""

    def __reduce__(self):
        return (open, ("harmed", "w"))


@pytest.mark.parametrize("content", [Harm(), {"model": {"a": torch.zeros(1)}}, [torch.zeros(1)]])
def test_a_pickle_of_more_than_tensors_is_not_opened(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "ImageReward.pt")
    with pytest.raises(UnsupportedError, match=r"cannot be read|something else than tensors"):
        blip_network.load(tmp_path / "ImageReward.pt", {})
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("name", ["ImageReward.pt", "reward.safetensors"])
def test_a_damaged_file(name, tmp_path):
    (tmp_path / name).write_bytes(b"not much")
    with pytest.raises(UnsupportedError, match=r"cannot be read: .*Download it again"):
        blip_network.load(tmp_path / name, {})

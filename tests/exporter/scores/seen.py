"""What scores see in tests: a network of a few random features as TorchScript, and pictures of two kinds."""

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn


class Few(nn.Module):
    """Uint8 (N, 3, height, width) → (N, width), as the networks of StyleGAN2-ADA's metrics take and give it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, width, 4, stride=4)

    def forward(self, img: torch.Tensor, return_features: bool = False, no_output_bias: bool = False) -> torch.Tensor:  # noqa: FBT001, FBT002 - theirs
        rows = self.layer(img.float() / 127.5 - 1).tanh().mean((2, 3))
        if return_features:
            return rows
        return (8 * rows).softmax(1) if no_output_bias else (8 * rows + 3).softmax(1) * 0 - 1


class Asked(nn.Module):
    """The same network as torchmetrics calls one, without a word."""

    def __init__(self, network: nn.Module, **asked: bool) -> None:
        super().__init__()
        self.network, self.asked = network, asked

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        return self.network(img, **self.asked)


def save_network(file: Path, width: int = 5, seed: int = 0) -> Few:
    """The network as a file, and itself."""
    torch.manual_seed(seed)
    network = Few(width).eval()
    with warnings.catch_warnings():  # which torch would have by torch.export now
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(network).save(str(file))
    return network


def pictures(count: int, seed: int, low: int = 0, side: int = 16) -> np.ndarray:
    """Pictures of one colour each with some noise, none darker than `low`: uint8 (N, side, side, 3)."""
    dice = np.random.default_rng(seed)
    colours = dice.integers(low, 200, (count, 1, 1, 3))
    return (colours + dice.integers(0, 56, (count, side, side, 3))).astype(np.uint8)


def tensor(images: np.ndarray) -> torch.Tensor:
    """Pictures as networks of torch take them."""
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def features(network: nn.Module, images: np.ndarray, **asked: bool) -> np.ndarray:
    """What the network itself gives, in torch."""
    with torch.no_grad():
        return network(tensor(images), **asked).double().numpy()


def spread(shares, few, draw, runs: int = 300):
    """How far estimates of `few` rows scatter over `runs` draws, and what the shares of one say of that: two deviations."""
    found = [shares(draw(few, seed)) for seed in range(runs)]
    means = [each.mean() for each in found]
    return np.std(means), np.mean([each.std() / np.sqrt(few) for each in found])

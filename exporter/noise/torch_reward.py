"""A reward as torch computes it, with a gradient: the networks that its folder was made of, and pictures prepared as there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from engines.errors import UnsupportedError
from engines.images import preprocess
from engines.reward import RewardManifest
from engines.tokenizer import TextTokenizer
from exporter import reward

if TYPE_CHECKING:
    from engines.inputs import Input


class TorchReward:
    """The networks of a reward's folder.

    Attributes:
        about: what the folder says.
        device: where they are.

    """

    def __init__(self, folder: Path) -> None:
        """Find and load them.

        Raises:
            BundleError: the folder is damaged, or no reward's.
            RecipeError: the networks are not found.
            UnsupportedError: what is there are others.

        """
        self.about = RewardManifest.of(folder)
        source = reward.source_of(self.about, folder)
        self.device = source.device
        self._module = source.network().requires_grad_(requires_grad=False)
        self._tokenizer = TextTokenizer.of(folder / self.about.tokenizer.file, self.about.tokenizer)

    def rate(self, prompts: Sequence[str]) -> Callable[[Tensor], Tensor]:
        """What rates images, float32 (images, height, width, 3) in [0, 1], each for its prompt: (images,)."""
        read = self._tokenizer.encode(prompts)
        given = [read.ids, *([read.mask] if self.about.tokenizer.mask else [])]
        texts = [torch.from_numpy(each).to(self.device) for each in given]
        return lambda images: self._module(prepared(images, self.about.image), *texts)


def prepared(images: Tensor, entry: Input) -> Tensor:
    """What `engines.images.preprocess` makes of pictures, but for the rounding to bytes; float32 (images, height, width, 3).

    Raises:
        UnsupportedError: it has no gradient, or does not take pictures of this size.

    """
    asked = entry.preprocessing
    height, width = (int(side) for side in entry.shape[1:3])
    if asked is None or asked.binarize or (asked.resize == "none" and images.shape[1:3] != (height, width)):
        raise UnsupportedError("this reward prepares its pictures in a way that has no gradient. Choose by generate --best-of.")
    if images.shape[1:3] != (height, width):
        size = images.shape[2], images.shape[1]
        (wide, high), (left, top) = preprocess.covering(size, (width, height), asked)
        # The resampling is linear in each axis, so PIL itself tells its matrix.
        rows = resampling(size[1], high, asked.resample)[top : top + height].to(images)
        columns = resampling(size[0], wide, asked.resample)[left : left + width].to(images)
        images = torch.einsum("ph,qw,bhwc->bpqc", rows, columns, images).clamp(0, 1)
    images = 1 - images if asked.invert else images
    mean, std = (torch.tensor(numbers).to(images) for numbers in (asked.mean, asked.std))
    return (images - mean) / std


def resampling(before: int, after: int, filter_name: str) -> Tensor:
    """PIL's resampling of a line of so many pixels to another number, as a matrix: float32 (after, before)."""
    lines = Image.fromarray(np.eye(before, dtype=np.float32))
    return torch.from_numpy(np.array(lines.resize((before, after), Image.Resampling[filter_name.upper()])))

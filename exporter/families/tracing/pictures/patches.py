"""Pictures as vision towers of language models take them: resized once more, normalised and cut into patches, in the graph."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from engines.errors import UnsupportedError
from engines.inputs import Preprocessing

#: How far values may be off from the image processor's own, and bits of PIL's weights behind the point.
_OFF, _BITS = 1e-4, 22


class Patches:
    """What an image processor of transformers makes of pictures of one size, in torch.

    Args:
        processor: of transformers; its resizing, its normalising and its order of patches are proved against it.
        sides: height and width of the pictures that it is given, in pixels.

    Attributes:
        sides: of the pictures, as above.
        grid: patches of one picture: in time, down and across.
        tokens: places in a text that stand for one picture.

    Raises:
        UnsupportedError: it does something else.

    """

    def __init__(self, processor: Any, sides: tuple[int, int]) -> None:  # noqa: ANN401 - transformers'
        self._name, self.sides = type(processor).__name__, sides
        probe = np.random.default_rng(0).integers(0, 256, (*sides, 3), np.uint8)
        wanted = processor(images=[Image.fromarray(probe)], return_tensors="np")
        try:
            self._frames, self._patch, self._merge = (
                int(getattr(processor, name)) for name in ("temporal_patch_size", "patch_size", "merge_size")
            )
            self.grid: tuple[int, ...] = tuple(map(int, wanted["image_grid_thw"][0]))
        except (AttributeError, KeyError) as error:
            raise UnsupportedError(f"{self._name} makes no patches in a grid of a picture, which is not built.") from error
        self.tokens = math.prod(self.grid) // self._merge**2
        down, across = (count * self._patch for count in self.grid[1:])
        self._across, self._down = _filter(processor, sides[1], across), _filter(processor, sides[0], down)
        mean, std = np.float32(processor.image_mean), np.float32(processor.image_std)
        self._mean, self._std = (torch.from_numpy(each).reshape(3, 1, 1) for each in (mean, std))
        levels = torch.from_numpy(probe.astype(np.float32)).permute(2, 0, 1)[None]
        for self._down_first in (False, True):  # PIL begins with the axis by which it has less to do
            made = self(levels).numpy()
            if made.shape == wanted["pixel_values"].shape and np.abs(made - wanted["pixel_values"]).max() < _OFF:
                break
        else:
            raise UnsupportedError(f"{self._name} makes patches in another way than is known, which is not built.")

    def __call__(self, levels: Tensor) -> Tensor:
        """Patches of pictures (pictures, 3, height, width) in whole levels from 0 to 255: float32 (patches, values)."""
        made = levels if self._down_first else _resized(levels, self._across)
        made = _resized(made.transpose(2, 3), self._down).transpose(2, 3)
        made = _resized(made, self._across) if self._down_first else made
        made = (made / 255 - self._mean) / self._std
        _, down, across = self.grid
        blocks = made.unflatten(3, (across // self._merge, self._merge, self._patch))
        blocks = blocks.unflatten(2, (down // self._merge, self._merge, self._patch))
        # (pictures, 3, down, in a block, row, across, in a block, column) → places first, then colours, rows and columns
        blocks = blocks.permute(0, 2, 5, 3, 6, 1, 4, 7)[:, :, :, :, :, :, None]
        blocks = blocks.expand(*[-1] * 6, self._frames, -1, -1)
        return blocks.reshape(-1, 3 * self._frames * self._patch**2)

    def blank(self, count: int) -> Tensor:
        """Patches of so many pictures, all zeros."""
        return torch.zeros(count * math.prod(self.grid), 3 * self._frames * self._patch**2)

    def grids(self, count: int) -> Tensor:
        """The grid of each of so many pictures, int64 (count, 3)."""
        return torch.tensor([self.grid] * count)


@functools.lru_cache(maxsize=8)
def of(processor: Any, sides: tuple[int, int]) -> Patches:  # noqa: ANN401 - transformers'
    """What it makes of pictures of that height and width, which is found out once."""
    return Patches(processor, sides)


def levels(prepared: Tensor, about: Preprocessing) -> Tensor:
    """Whole levels from 0 to 255 of a picture (pictures, 3, height, width) that a bundle has prepared."""
    std, mean = (torch.tensor(own, dtype=torch.float32).reshape(-1, 1, 1) for own in (about.std, about.mean))
    return ((prepared * std + mean) * 255 + 0.5).floor()


def _filter(processor: Any, length: int, wanted: int) -> tuple[Tensor, Tensor] | None:  # noqa: ANN401 - transformers'
    """How PIL resizes rows of that length, as two matrices (length, wanted) whose sum it is; None where they stay as they are.

    PIL computes with weights of 22 bits behind the point and rounds sums of them. The first matrix has 11 bits of each, of which
    float32 sums levels without an error, and the second has the rest.
    """
    if length == wanted:
        return None
    unit = Image.fromarray(np.eye(length, dtype=np.int32) << _BITS)
    whole = np.array(unit.resize((wanted, length), processor.resample)).astype(np.float64) / 2**_BITS
    coarse = np.round(whole * 2 ** (_BITS // 2)) / 2 ** (_BITS // 2)
    return torch.from_numpy(coarse.astype(np.float32)), torch.from_numpy((whole - coarse).astype(np.float32))


def _resized(levels: Tensor, matrices: tuple[Tensor, Tensor] | None) -> Tensor:
    """Whole levels (…, length) along their last axis as PIL resizes them, to whole levels."""
    if matrices is None:
        return levels
    coarse, fine = (levels @ matrix for matrix in matrices)
    below = (coarse + 0.5).floor()
    return (below + (coarse + 0.5 - below + fine).floor()).clamp(0, 255)

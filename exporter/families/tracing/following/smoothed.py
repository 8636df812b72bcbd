"""Resizing with antialiasing, which no operator of ONNX does as torch does: the same sums, as products with two matrices.

How much of each cell a resized one has depends on the sizes alone, so these must be numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import SymInt, Tensor
from torch.utils._python_dispatch import _disable_current_modes

from engines.errors import UnsupportedError


def antialiased(name: str, kwargs: Mapping[str, Any]) -> bool:
    """Whether a function of torch, with these arguments by name, resizes so."""
    return name == "interpolate" and bool(kwargs.get("antialias"))


def resized(given: Tensor, size: Sequence[Any], mode: str = "bicubic", *, align_corners: bool | None = None, **_: Any) -> Tensor:  # noqa: ANN401
    """What torch makes of (B, channels, height, width) in that size.

    Raises:
        UnsupportedError: a size is open.

    """
    lengths = [*given.shape[-2:], *size]
    if any(isinstance(each, SymInt) for each in lengths):
        raise UnsupportedError("a network resizes with antialiasing, of which the sizes must be known: build a bundle for each.")
    height, width, down, across = (int(each) for each in lengths)
    rows, columns = _weights(height, down, mode, align_corners), _weights(width, across, mode, align_corners)
    return rows.to(given) @ given @ columns.to(given).T


@functools.cache
def _weights(before: int, after: int, mode: str, align_corners: bool | None) -> Tensor:  # noqa: FBT001
    """How much each cell of one length has of those of another, (after, before)."""
    with torch._C.DisableTorchFunction(), _disable_current_modes():  # noqa: SLF001 - no tensors of a graph
        each = torch.eye(before).reshape(1, before, before, 1).repeat(1, 1, 1, 2)  # of one column torch makes something else
        found = torch.nn.functional.interpolate(each, (after, 2), mode=mode, align_corners=align_corners, antialias=True)
        return found[0, :, :, 0].T.contiguous()

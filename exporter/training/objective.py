"""What a training minimises, as its loop sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Losses(Protocol):
    """What gives the losses for a share of the data; the loop around it knows optimizers, averages and checkpoints alone.

    A step is `draw`, then the call, then `stepped`. The latter two touch nothing but tensors on the device and never wait for
    them, because their kernels are captured once and replayed.

    Attributes:
        frozen: parameters of the networks that are not trained, for the estimate of memory.
        metadata: what is compared, as JSON holds it.
        kept: what goes on changing besides the student, with `state_dict` and `load_state_dict`; part of every checkpoint.

    """

    @property
    def frozen(self) -> int: ...  # noqa: D102 - above
    @property
    def metadata(self) -> Mapping[str, Any]: ...  # noqa: D102
    @property
    def kept(self) -> Sequence[Any]: ...  # noqa: D102

    def settle(self, device: torch.device, dtype: torch.dtype) -> None:
        """Bring the frozen networks, in a type, and the data to where the student trains; called once, before anything else.

        Raises:
            UnsupportedError: the student cannot learn this.

        """
        ...

    def draw(self, share: int) -> tuple[Tensor, ...]:
        """What one pass sees, on the device, of shapes that do not change; it depends on nothing but the share's number.

        Args:
            share: number of the batch, counted over steps, passes and processes.

        """
        ...

    def __call__(self, model: nn.Module, *drawn: Tensor) -> dict[str, Tensor]:
        """Scalar losses of the student's module; "loss" is what is minimised, the others are told."""
        ...

    def stepped(self, parameters: Sequence[nn.Parameter]) -> None:
        """The optimizer has made a step; these are the student's parameters now. Like the call, it touches the device alone."""
        ...

    def end(self) -> None:
        """Leave all networks as they were."""
        ...

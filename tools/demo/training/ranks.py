"""Training in several processes that average their gradients.

On a small machine which other work shares, processes of one thread each keep
their share of the cores, whereas the threads of one process would wait for
each other after every operation.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import distributed


def start() -> None:
    """Joins the group that ``torch.distributed.run`` started, if any."""
    if "RANK" in os.environ and not distributed.is_initialized():
        distributed.init_process_group("gloo")


def count() -> int:
    """Number of processes that train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """The number of this process; process 0 writes the files."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def _in_memory_order(tensor: torch.Tensor) -> torch.Tensor:
    """A view whose flattening needs no copy, for weights kept channels last."""
    if tensor.dim() == 4 and not tensor.is_contiguous():
        return tensor.permute(0, 2, 3, 1)
    return tensor


def average_gradients(parameters: Sequence[torch.nn.Parameter]) -> None:
    """Replaces every gradient by its mean over the processes."""
    if count() == 1:
        return
    gradients = [_in_memory_order(p.grad) for p in parameters if p.grad is not None]
    together = torch.cat([gradient.reshape(-1) for gradient in gradients])
    distributed.all_reduce(together)
    together /= count()
    parts = together.split([gradient.numel() for gradient in gradients])
    torch._foreach_copy_(gradients, [p.view(g.shape) for p, g in zip(parts, gradients, strict=True)])


def agreed(value: int) -> int:
    """Process 0's value, in every process."""
    if count() == 1:
        return value
    shared = torch.tensor([value])
    distributed.broadcast(shared, 0)
    return int(shared)

"""Memory that a training takes: how much at least, before it starts, and where its networks' weights lie."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from engines.errors import MachineError

if TYPE_CHECKING:
    from exporter.training.options import Options


def refuse_memory(student: int, teacher: int, options: Options, device: torch.device, shares: int) -> str:
    """Compare what weights, gradients and the optimizer take with what is free, and say both; activations come on top.

    Args:
        student: parameters.
        teacher: parameters.
        options: the pass.
        device: where it trains.
        shares: processes over which the student's state is spread.

    Raises:
        MachineError: it cannot fit.

    """
    half = options.mixed_precision in {"bf16", "fp16"}
    # Weights, gradients and two moments in float32; half copies of weights while a pass runs; the average.
    each = 16 + 2 * half + 4 * (options.ema is not None)
    needed, free = student * each // shares + teacher * (2 if half else 4), available(device)
    told = f"at least {needed / 1e9:.2f} GB of memory and what the activations take, of {free / 1e9:.2f} GB free on {device.type}"
    if needed > free:
        help_ = "Leave ema out, or spread it over processes with accelerate's FSDP."
        raise MachineError(f"{options.verb} needs {told}.\n  {help_}")
    return f"needs {told}"


def available(device: torch.device) -> int:
    """Bytes free on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    listing = Path("/proc/meminfo")
    for line in listing.read_text().splitlines() if listing.is_file() else []:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def own(network: nn.Module) -> nn.Module:
    """Make a network the training's own: each weight and buffer in memory of its own, none of them asking for a gradient.

    Weights read from a file are views of the mapped file, at whatever offset they have there, and a deep copy keeps the offset;
    and they ask for a gradient, which those of a trained network do not. Libraries choose kernels by alignment, and torch whether
    it multiplies one large matrix or many small ones by who asks for a gradient; kernels differ in their last digit. A training
    that goes on with networks read from a file would not repeat one that never stopped.
    """
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data = tensor.data.clone()
    return network.requires_grad_(requires_grad=False)

"""Parameters and multiply-adds of every part, counted on the meta device: no weights are read, nothing is computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch.utils.flop_counter import FlopCounterMode

from exporter.models.checkpoint import Checkpoint

if TYPE_CHECKING:
    from torch import nn

    from exporter.families import Family
    from exporter.part import Part, Precision


@dataclass(frozen=True)
class Size:
    """What one call of a part costs at the recipe's typical shape, with every branch that guidance needs.

    Attributes:
        parameters: numbers held.
        multiply_adds: of matrix products, convolutions and attention; half of what torch counts as operations.

    """

    parameters: int
    multiply_adds: int


class _Outline(Checkpoint):
    def module(self, component: str, precision: Precision = "fp32") -> nn.Module:  # noqa: ARG002 - shapes have no precision
        return self.skeleton(component).eval()


def count(family: Family, names: Iterable[str] = ()) -> Mapping[str, Size]:
    """Part → size, in the order in which the pipeline runs them, or of some of them in the order of their names."""
    checkpoint = family.checkpoint
    outline = _Outline(**{each.name: getattr(checkpoint, each.name) for each in fields(checkpoint)})
    drawn = family.replacing(checkpoint=outline)
    found: dict[str, Size] = {}
    with torch.device("meta"):
        for name in names or drawn.roles:
            found[name] = size(drawn.part(name, "fp32"))
    return found


def size(part: Part) -> Size:
    """Size of a part on the meta device, at its typical shape."""
    extent = part.signature.extent("typical")
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        part.module(
            *(torch.empty(part.signature.shape(port, extent), dtype=getattr(torch, port.dtype)) for port in part.signature.inputs)
        )
    return Size(sum(value.numel() for value in part.module.parameters()), counter.get_total_flops() // 2)

"""Run a part on the source's own inputs, after its passes and in its precision: what the graph will have to equal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from exporter.part import Part
    from exporter.recording import Case


def measure(part: Part, cases: Iterable[Case]) -> list[Case]:
    """The cases with `passes` filled in: the part's outputs by port name, float32."""
    ports, names = part.signature.inputs, [port.name for port in part.signature.outputs]
    measured = []
    for case in cases:
        with torch.no_grad():
            outputs = part.module(*(torch.from_numpy(case.inputs[port.name]) for port in ports))
        tensors = outputs if isinstance(outputs, tuple) else (outputs,)
        found = {name: tensor.float().numpy() for name, tensor in zip(names, tensors, strict=True)}
        measured.append(replace(case, passes=found))
    return measured

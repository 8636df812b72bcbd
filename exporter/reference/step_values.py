"""What the source computes on the way: the value of any step of a part's trace, by the name that the graph has for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from exporter.onnx.capture import traced
from exporter.onnx.mixed_precision import run

if TYPE_CHECKING:
    import numpy as np

    from exporter.part import Part


class StepValues:
    """A part that is run in torch, and looked into.

    Attributes:
        modules: step that makes real numbers → the module of the source that it belongs to; an output has its port's name.

    """

    def __init__(self, part: Part) -> None:
        self._program, self._signature = traced(part), part.signature
        ends = self._program.graph_signature.user_outputs
        self._ports = dict(zip(map(str, ends), (port.name for port in part.signature.outputs), strict=True))
        steps = [step for step in self._program.graph.nodes if step.op == "call_function" and _is_real(step.meta.get("val"))]
        self.modules: dict[str, str] = {self._ports.get(str(step.name), str(step.name)): _module(step) for step in steps}

    def __call__(self, inputs: Mapping[str, np.ndarray], wanted: Collection[str]) -> dict[str, np.ndarray]:
        """Run the part on one call's inputs, and return the steps that are wanted, float32."""
        found: dict[str, np.ndarray] = {}

        def keep(step: fx.Node, value: Any) -> None:  # noqa: ANN401 - whatever a step makes
            name = self._ports.get(step.name, step.name)
            if name in wanted and isinstance(value, Tensor):
                found[name] = value.float().numpy().copy()

        run(self._program, [torch.from_numpy(inputs[port.name]) for port in self._signature.inputs], keep)
        return found


def _module(step: fx.Node) -> str:
    """The innermost module of a step; empty where it is of none of the source's, but of what wraps it."""
    stack = list((step.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""


def _is_real(value: Any) -> bool:  # noqa: ANN401 - torch's record of what a step makes
    return isinstance(value, Tensor) and value.is_floating_point()

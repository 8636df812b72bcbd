"""A step of a training as one CUDA graph: small networks wait for the launches of their kernels, and a graph has one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

#: Steps that run as they are, in which libraries choose their algorithms and the optimizer makes its moments.
_WARM = 3


class Capture:
    """Runs a step as it is a few times, then captures it and replays it on what later calls are given.

    As torch's notes on CUDA graphs say ("whole-network capture"): what the step makes on the way, gradients included, lives in
    the graph's memory and is made anew by every replay. Shapes must not change, and the step must not wait for the device.

    Args:
        step: tensors on the device → what is told of the step, a tensor.

    """

    def __init__(self, step: Callable[..., Tensor]) -> None:
        self._step, self._calls = step, 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._given: list[Tensor] = []
        self._told = torch.empty(0)

    def __call__(self, *drawn: Tensor) -> Tensor:
        """Make a step."""
        self._calls += 1
        if self._calls <= _WARM:
            return self._aside(drawn)
        if self._graph is None:
            self._given = [each.clone() for each in drawn]
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._told = self._step(*self._given)
        for own, other in zip(self._given, drawn, strict=True):
            own.copy_(other)
        self._graph.replay()
        return self._told.clone()

    def _aside(self, drawn: tuple[Tensor, ...]) -> Tensor:
        """On a stream of its own, as what is captured later must not have begun on the usual one."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            told = self._step(*drawn)
        torch.cuda.current_stream().wait_stream(side)
        return told

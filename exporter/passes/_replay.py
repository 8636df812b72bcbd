"""A pass of a training as one CUDA graph: small networks wait for the launches of their kernels, a graph has one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

#: Passes before the capture, in which libraries choose their algorithms and make their workspaces.
_WARM = 3


class Replay:
    """Captures the first call of `run`, and replays it on what later calls are given.

    As torch's notes on CUDA graphs say ("whole-network capture"): gradients and results live in the graph's memory, and every
    replay writes them anew. Shapes must not change.

    Args:
        run: tensors → named scalars; makes the parameters' gradients.
        parameters: whose gradients it makes.

    """

    def __init__(self, run: Callable[..., dict[str, Tensor]], parameters: Sequence[nn.Parameter]) -> None:
        self._run, self._parameters = run, parameters
        self._graph: torch.cuda.CUDAGraph | None = None
        self._given: tuple[Tensor, ...] = ()
        self._found: dict[str, Tensor] = {}

    def __call__(self, *drawn: Tensor) -> dict[str, Tensor]:
        """Run once; the results are overwritten by the next call."""
        if self._graph is None:
            self._capture(drawn)
        torch._foreach_copy_(list(self._given), list(drawn))
        self._graph.replay()  # type: ignore[union-attr]
        return self._found

    def _capture(self, drawn: tuple[Tensor, ...]) -> None:
        self._given = tuple(each.clone() for each in drawn)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM):
                self._run(*self._given)
                self._forget()
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            found = self._run(*self._given)
            self._found = {name: value.detach() for name, value in found.items()}

    def _forget(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

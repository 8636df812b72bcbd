"""Run a part on the source's own inputs, after its passes and in its precision: what the graph will have to equal."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import wrap_torch_function

from exporter.onnx.capture import traced
from exporter.onnx.mixed_precision import run

if TYPE_CHECKING:
    from exporter.part import Case, Part


def measure(part: Part, cases: Iterable[Case]) -> list[Case]:
    """The cases with `passes` filled in: the part's outputs by port name, float32."""
    ports, names = part.signature.inputs, [port.name for port in part.signature.outputs]
    program = traced(part) if part.single else None
    measured = []
    with torch.no_grad(), _summed_in_single(part.module):
        for case in cases:
            inputs = [torch.from_numpy(case.inputs[port.name]) for port in ports]
            outputs = part.module(*inputs) if program is None else run(program, inputs)
            tensors = outputs if isinstance(outputs, tuple) else (outputs,)
            found = {name: tensor.float().numpy() for name, tensor in zip(names, tensors, strict=True)}
            measured.append(replace(case, passes=found))
    return measured


@contextmanager
def _summed_in_single(module: nn.Module) -> Generator[None]:
    """Let convolutions and linear layers in fp16 sum their products in float32 and round the result, as GPUs do.

    It is what a processor's fp16 kernels of torch do as well, in 150 times the time of float32 for a convolution.
    """
    layers = [each for each in module.modules() if isinstance(each, nn.Conv2d | nn.Linear) and each.weight.dtype == torch.float16]
    for layer in layers:
        layer.forward = functools.partial(_rounded, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _rounded(layer: nn.Conv2d | nn.Linear, input: Tensor) -> Tensor:  # noqa: A002 - torch's name of it
    own = F.linear if isinstance(layer, nn.Linear) else layer._conv_forward  # noqa: SLF001 - it knows every kind of padding
    return _summed(input, layer.weight, layer.bias, own)


@wrap_torch_function(lambda given, weight, bias, layer: (given, weight, bias))  # noqa: ARG005 - of the same arguments
def _summed(given: Tensor, weight: Tensor, bias: Tensor | None, layer: Callable[..., Tensor]) -> Tensor:
    """A layer in float32 of what is in fp16; to whoever follows a part's functions it is one that meets weights in fp16."""
    return layer(given.float(), weight.float(), None if bias is None else bias.float()).to(weight.dtype)

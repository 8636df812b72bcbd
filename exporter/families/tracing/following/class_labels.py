"""What pipelines hand their UNet as a class: a level of noise, or unCLIP's embedding of a picture, which is then the step's.

Else the first layer of the UNet would be what is made of pictures alone, and whoever makes that would need the UNet.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from exporter.families.tracing.following.origins import STEP, marked, pictured
from exporter.families.tracing.following.standins import stand_in

#: diffusers' word for it, among the arguments of networks.
_LABELS = "class_labels"


@contextmanager
def met_at_the_door(pipeline: Any) -> Iterator[None]:  # noqa: ANN401 - a stand-in for a pipeline of diffusers
    """Within it its networks that take classes, and what stands for them, meet those with the step before they compute."""
    before = {name: each for name, each in vars(pipeline).items() if isinstance(each, nn.Module) and _takes(each)}
    vars(pipeline).update({name: _meeting(each) for name, each in before.items()})
    try:
        yield
    finally:
        vars(pipeline).update(before)


def _takes(network: nn.Module) -> bool:
    return _LABELS in inspect.signature(type(network).forward).parameters


def _meeting(network: Any) -> Any:  # noqa: ANN401
    def call(_self: object, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the network's
        return network(*args, **{name: _met(value) if name == _LABELS else value for name, value in kwargs.items()})

    return stand_in(network, __call__=call)


def _met(value: Any) -> Any:  # noqa: ANN401
    if not isinstance(value, Tensor) or not pictured(value):
        return value
    return value + marked(torch.zeros((), dtype=value.dtype), STEP)

"""Times of a network in half precision: in float32 until they meet its weights, whatever the pipeline rounds them to.

Pipelines of flow matching hand a time between 0 and 1 to their network in its own number format, and the network multiplies it by
1000: half precision has 0.751 to within 0.25 thousandths, which is a quarter of a radian in the quickest of its sinusoids. So it
is with guidance scales that a network is told, of which 3.559 is 3558 there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

#: Where a tensor keeps in which number format the pipeline would have it.
_ASKED = "_asked_format"
_NARROW = (torch.float16, torch.bfloat16)
#: Axes of a latent: what is made of one and of a time is no time any more.
_LATENT = 4
_CASTS = {"to", "type", "type_as", "half", "bfloat16"}
#: Functions of weights: what they make of a time is none, also where a network keeps these weights in float32.
_LAYERS = {"linear", "bilinear", "conv1d", "conv2d", "matmul", "__matmul__", "mm", "bmm", "addmm", "baddbmm"}


def exact(time: Tensor, asked: torch.dtype = torch.float32) -> Tensor:
    """A time, or a scale that a network is told, in a number format that is `asked` of it; within `ExactTimes` none is narrow."""
    return _kept(time.to(torch.float32 if asked in _NARROW else asked), asked)


class ExactTimes(TorchFunctionMode):
    """Within it what is made of times alone stays as it was, until it is computed with something in half precision."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever torch's function returns
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        given = [each for each in pytree.tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        asked = [getattr(each, _ASKED) for each in given if hasattr(each, _ASKED)]
        if not asked or name == "__get__":
            told = getattr(func, "__self__", None) is Tensor.dtype  # by which pipelines choose the format of others
            return asked[0] if asked and told else func(*args, **kwargs)
        if name in _CASTS and (wanted := _format(name, args, kwargs)) in _NARROW and hasattr(args[0], _ASKED):
            return _kept(args[0].view_as(args[0]), wanted)
        if any(each.dtype in _NARROW for each in given):
            rounded = pytree.tree_map_only(Tensor, _rounded, [*args])
            return func(*rounded, **{key: pytree.tree_map_only(Tensor, _rounded, each) for key, each in kwargs.items()})
        found = func(*args, **kwargs)
        if name in _LAYERS or any(each.ndim >= _LATENT and not hasattr(each, _ASKED) for each in given):
            return found
        found = list(found) if isinstance(found, Iterator) else found
        narrow = next((each for each in asked if each in _NARROW), asked[0])
        found = pytree.tree_map_only(Tensor, lambda each: _kept(each, narrow), found)
        return iter(found) if name == "__iter__" else found


def _kept(made: Tensor, asked: torch.dtype) -> Tensor:
    if made.is_floating_point():
        setattr(made, _ASKED, asked)
    return made


def _rounded(value: Tensor) -> Tensor:
    """As the pipeline would have it."""
    asked = getattr(value, _ASKED, None)
    return value.to(asked) if asked in _NARROW else value


def _format(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.dtype | None:
    """The number format to which a tensor is cast, if any."""
    if name in ("half", "bfloat16"):
        return torch.float16 if name == "half" else torch.bfloat16
    for each in (*args[1:], *kwargs.values()):
        if isinstance(each, Tensor):
            return each.dtype
        if isinstance(each, torch.dtype):
            return each
    return None

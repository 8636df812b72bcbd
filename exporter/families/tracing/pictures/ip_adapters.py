"""Pipelines whose UNet has an IP-Adapter: the adapter's scale is an argument of their call, and its picture is read once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from engines.errors import UnsupportedError
from exporter.families.tracing.following.origins import STEP, marked
from exporter.models import ip_adapter_weights

#: diffusers' word for the adapter's picture, and after `set_ip_adapter_scale` the name of how much it counts.
IMAGE, SCALE = "ip_adapter_image", "ip_adapter_scale"
#: Where a class keeps the one that it was made of.
_PLAIN = "_without_ip_adapter"


@cache
def adapted(kind: Any) -> Any:  # noqa: ANN401 - a class of diffusers' pipelines
    """The class whose call takes an `ip_adapter_scale`, too.

    Raises:
        UnsupportedError: its call takes no adapter's picture.

    """
    call = kind.__call__
    about = inspect.signature(inspect.unwrap(call))
    if IMAGE not in about.parameters:
        raise UnsupportedError(f"{kind.__name__} takes no IP-Adapter.\n  Leave model.ip_adapter out.")
    scale = inspect.Parameter(SCALE, inspect.Parameter.KEYWORD_ONLY, default=1.0, annotation="float")
    takes = sorted([*about.parameters.values(), scale], key=lambda each: each.kind)

    def scaled_call(self: Any, *args: Any, ip_adapter_scale: Any = 1.0, **kwargs: Any) -> Any:  # noqa: ANN401
        with _reading(self.unet, ip_adapter_scale):
            return inspect.unwrap(call)(self, *args, **kwargs)

    scaled_call.__signature__ = about.replace(parameters=takes)  # type: ignore[attr-defined]
    # Without gradients, as diffusers has it; who unwraps it, as who follows a call does, gets it bare.
    called = functools.wraps(scaled_call)(torch.no_grad()(scaled_call))
    return type(kind.__name__, (kind,), {"__call__": called, "__module__": kind.__module__, _PLAIN: kind})


def plain(kind: Any) -> Any:  # noqa: ANN401
    """The class as diffusers has it."""
    return getattr(kind, _PLAIN, kind)


def has_adapter(pipeline: Any) -> bool:  # noqa: ANN401 - a pipeline of diffusers, or a class of them
    """Whether it has an IP-Adapter."""
    return hasattr(pipeline, _PLAIN)


def like(other: Any, kind: Any) -> Any:  # noqa: ANN401 - classes
    """A class of pipelines, with an adapter where another has one."""
    return adapted(kind) if has_adapter(other) else kind


@contextmanager
def _reading(unet: Any, scale: Any) -> Iterator[None]:  # noqa: ANN401
    """Within it the adapter's picture counts so much, and what the UNet reads of it is the step's from its projection on.

    Else keys and values of every layer would be what a step takes of the picture.
    """

    def met(_module: object, _args: object, found: Any) -> Any:  # noqa: ANN401
        nothing = marked(torch.zeros(()), STEP)
        return pytree.tree_map_only(Tensor, lambda each: each + nothing.to(each.dtype), found)

    hook = unet.encoder_hid_proj.register_forward_hook(met)
    ip_adapter_weights.set_scale(unet, scale)
    try:
        yield
    finally:
        hook.remove()
        ip_adapter_weights.set_scale(unet, 1.0)


def words(pipeline: Any) -> Mapping[str, str]:  # noqa: ANN401
    """Name of the input → argument of the call that is the adapter's picture; none without an adapter."""
    return {IMAGE: IMAGE} if has_adapter(pipeline) else {}

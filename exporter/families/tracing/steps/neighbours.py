"""Networks in which the pictures of one batch see each other, so that none is drawn as it is alone."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from torch import nn

from exporter.families.tracing.following.origins import Origins

if TYPE_CHECKING:
    from exporter.families.tracing.facts import Survey


def along_the_batch(survey: Survey, height: int, width: int) -> bool:
    """Whether a network of a step attends along the batch, by torch's own module told that its rows are a sequence.

    diffusers' `ControlNetUnionModel` does (0.42.1). Which it is two pictures tell, whose batch is longer than one's.
    """
    networks = [getattr(survey.pipeline, name) for name in survey.components.get("denoiser", [])]
    modules = [module for network in networks for module in network.modules() if _takes_rows_first(module)]
    return bool(modules) and _lengths(survey, modules, (1, height, width)) != _lengths(survey, modules, (2, height, width))


def _takes_rows_first(module: nn.Module) -> bool:
    return isinstance(module, nn.MultiheadAttention) and not module.batch_first


def _lengths(survey: Survey, modules: list[nn.Module], size: tuple[int, int, int]) -> list[int]:
    """How long the sequences are of which a module is asked, for so many pictures."""
    found: list[int] = []

    def saw(_module: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        query = args[0] if args else given["query"]
        found.append(int(query.shape[0]))

    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_pre_hook(saw, with_kwargs=True).remove)
        survey.follow(Origins(), {}, size)
    return found

"""A pipeline of diffusers whose guidance has a scale of each step, which diffusers itself has only in callbacks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from exporter.recipe.sampling import GuidanceOptions


@dataclass(frozen=True)
class SteeredCalls:
    """What counted at every call of the denoiser, appended as they are made; empty where guidance is the same at all.

    Attributes:
        scales: the usual scale; empty too where that is an input of the network, or there is none.
        pag_scales: of perturbed attention; empty too where there is none.

    """

    scales: list[float] = field(default_factory=list)
    pag_scales: list[float] = field(default_factory=list)


@contextmanager
def steered(pipeline: Any, denoiser: nn.Module, guidance: GuidanceOptions) -> Iterator[SteeredCalls]:  # noqa: ANN401 - diffusers'
    """Within it, the pipeline mixes its branches by the recipe's scales of each step; all of them are computed all the same."""
    calls = SteeredCalls()
    if guidance.interval is None and guidance.scales is None:
        yield calls
        return

    free, shares = guidance.mode == "classifier_free", list[float]()

    def count(*_: object) -> None:
        total, asked = len(pipeline.scheduler.timesteps), max(pipeline._guidance_scale, 1.0)  # noqa: SLF001 - has no other name
        planned = guidance.shares(total)
        # Of a run from an image only the last steps are played.
        shares.append(1.0 if planned is None else planned[total - pipeline.num_timesteps + len(shares)])
        if free:
            calls.scales.append(1 + shares[-1] * (asked - 1))
        if guidance.pag:
            calls.pag_scales.append(shares[-1] * pipeline._pag_scale)  # noqa: SLF001

    def scale(_: object) -> float:
        return calls.scales[-1] if calls.scales else 1.0

    def pag_scale(played: Any) -> float:  # noqa: ANN401 - diffusers'
        return calls.pag_scales[-1] if calls.pag_scales else played._pag_scale  # noqa: SLF001

    kind = type(pipeline)
    hook = denoiser.register_forward_pre_hook(count)
    own = {"guidance_scale": property(scale)} if free else {}
    own |= {"pag_scale": property(pag_scale)} if guidance.pag else {}
    pipeline.__class__ = type(kind.__name__, (kind,), own)
    try:
        yield calls
    finally:
        pipeline.__class__ = kind
        hook.remove()

"""A pipeline of diffusers whose guidance has a scale of each step, which diffusers itself has only in callbacks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from exporter.recipe.sampling import GuidanceOptions


@contextmanager
def steered(pipeline: Any, denoiser: nn.Module, guidance: GuidanceOptions) -> Iterator[list[float]]:  # noqa: ANN401 - diffusers'
    """Within it, the pipeline mixes its branches by the recipe's scale of each step; both of them are computed all the same.

    Yields:
        The scale at every call of the denoiser, appended as it goes; stays empty where it is the same at all.

    """
    scales: list[float] = []
    if guidance.interval is None and guidance.scales is None:
        yield scales
        return

    def count(*_: object) -> None:
        total, asked = len(pipeline.scheduler.timesteps), max(pipeline._guidance_scale, 1.0)  # noqa: SLF001 - has no other name
        shares = guidance.shares(total)
        # Of a run from an image only the last steps are played.
        share = 1.0 if shares is None else shares[total - pipeline.num_timesteps + len(scales)]
        scales.append(1 + share * (asked - 1))

    kind = type(pipeline)
    hook = denoiser.register_forward_pre_hook(count)
    pipeline.__class__ = type(kind.__name__, (kind,), {"guidance_scale": property(lambda _: scales[-1] if scales else 1.0)})
    try:
        yield scales
    finally:
        pipeline.__class__ = kind
        hook.remove()

"""Step caching in a traced pipeline as diffusers runs it: its network whole at some steps, its first blocks at the others."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from engines.errors import UnsupportedError
from exporter.families import Family
from exporter.families.tracing.following import dry_run

if TYPE_CHECKING:
    from exporter.families.tracing.steps.blocks import Blocks
    from exporter.recipe.sampling import CacheOptions


class CutFamily(Family, Protocol):
    """A family that knows where its network is cut."""

    @property
    def blocks(self) -> Blocks:
        """The two places; raises RecipeError where there are none."""
        ...


@contextmanager
def cached(pipeline: Any, family: CutFamily, cache: CacheOptions | None, sides: Sequence[int]) -> Iterator[list[Tensor]]:  # noqa: ANN401
    """Within it, a pipeline of diffusers calls its network as a cache says, whole or shallow.

    Args:
        pipeline: whose scheduler's `step` ends each step.
        family: that knows where its network is cut.
        cache: which steps are whole; None: all of them.
        sides: of the latent, in cells.

    Yields:
        Per step the deep feature that was left, or given, (rows, h, w, numbers), the rows of all calls after each other. Stays
        empty without a cache.

    """
    features = list[Tensor]()
    if cache is None:
        yield features
        return
    name = next(part for part, role in family.roles.items() if role == "denoiser")
    network, blocks, scheduler = getattr(pipeline, name), family.blocks, pipeline.scheduler
    options = family.recipe.sampler.model_copy(update={"cache": cache})
    plan, left, rows, waiting = list[bool](), list[Tensor](), list[int](), list[Tensor]()
    forward = network.forward
    step, before = scheduler.step, vars(scheduler).get("step")

    def answer(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the network's
        if not plan:
            plan.extend(options.wholes(total := len(scheduler.timesteps), total - _played(pipeline, total)))
        if plan[len(features)]:
            with blocks.whole(network, cache.depth, sides) as kept:
                found = forward(*args, **kwargs)
            left.extend(kept)
            return found
        if not waiting:
            waiting.extend(features[-1].split(rows))
        with blocks.shallow(network, cache.depth, [waiting.pop(0)]):
            return forward(*args, **kwargs)

    @functools.wraps(step)  # pipelines look at its arguments
    def stepped(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the scheduler's
        if left:
            rows[:] = [len(each) for each in left]
        features.append(torch.cat(left).reshape(sum(rows), *sides, -1) if left else features[-1])
        left.clear()
        return step(*args, **kwargs)

    network.forward, scheduler.step = answer, stepped
    try:
        yield features
    finally:
        del network.forward
        if before is None:
            del scheduler.step
        else:
            scheduler.step = before


def _played(pipeline: Any, total: int) -> int:  # noqa: ANN401 - of diffusers
    """How many of the scheduler's times a pipeline plays, which is all of them unless it starts from a picture."""
    if "strength" not in dry_run.arguments(pipeline):
        return total
    found = vars(pipeline).get("_num_timesteps")
    if found is None:
        raise UnsupportedError(
            f"{type(pipeline).__name__} does not say at which step it starts from a picture, by which sampler.cache counts; "
            "leave one of them out."
        )
    return int(found)

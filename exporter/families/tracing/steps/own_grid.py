"""A recipe's own times or noise levels in pipelines of diffusers, some of which take none in their call."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from exporter.families.tracing.following import dry_run

_GRIDS = ("timesteps", "sigmas")


@contextmanager
def own_grid(pipeline: Any, asked: Mapping[str, Any]) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - diffusers'
    """Within it the pipeline's scheduler is told the grid that is asked for, where the pipeline's call takes none.

    Args:
        pipeline: of diffusers.
        asked: arguments of its call.

    Yields:
        Those that are left for the call.

    """
    takes = dry_run.arguments(pipeline)
    left = {name: value for name, value in asked.items() if name not in _GRIDS or name in takes}
    grid = {name: value for name, value in asked.items() if name not in left}
    if not grid:
        yield left
        return
    scheduler = pipeline.scheduler
    original, before = scheduler.set_timesteps, vars(scheduler).get("set_timesteps")

    @functools.wraps(original)  # pipelines look at what it takes
    def set_timesteps(_steps: Any = None, **options: Any) -> None:  # noqa: ANN401 - diffusers'
        others = {name: value for name, value in options.items() if name not in (*_GRIDS, "num_inference_steps")}
        original(**others, **grid)

    scheduler.set_timesteps = set_timesteps
    try:
        yield left
    finally:
        if before is None:
            del scheduler.set_timesteps
        else:
            scheduler.set_timesteps = before

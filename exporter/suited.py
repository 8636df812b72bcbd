"""Which graph suits all the engines that are made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exporter.plan import Plan


def fused(plan: Plan, name: str, opset: int) -> tuple[str, ...]:
    """Graph passes into operators that every engine of a part's graph has; of a fused pipeline's parts none."""
    found = {backend.fused for backend in plan.targets[name].values() if backend.opset == opset}
    return next(iter(found)) if plan.recipe.pipeline == "stepped" and len(found) == 1 else ()

"""A worker's first task: an ordinary build of a point's recipe, and what the bundle is. In and out go plain data."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engines.errors import RecipeError
from exporter.build import build
from exporter.recipe.schema import Recipe
from exporter.stages.plan import Plan
from exporter.stages.stage import Results
from exporter.stages.store import Store
from exporter.sweep.result import BuildFacts

if TYPE_CHECKING:
    from engines.bundle import Manifest

#: Parts that hold no parameters of their own: the same weights in another graph.
_SAME_WEIGHTS = {"shallow", "pipeline"}


@dataclass(frozen=True)
class BuildTask:
    """A recipe's file with `--set`, the folder that its bundle is to lie in, and the store's."""

    recipe: Path
    assignments: tuple[str, ...]
    out: Path
    store: Path


def build_point(task: BuildTask) -> BuildFacts:
    """Build a bundle as `t2iexport build` does, silently.

    Raises:
        T2IError: as a build does; the text is the reason.

    """
    recipe, store, start = Recipe.load(task.recipe, task.assignments), Store(task.store), time.perf_counter()
    try:
        bundle, _ = build(recipe, task.out, store, _silent)
    except RecipeError as error:
        raise RecipeError(recipe.located(error.problems)) from error
    seconds, asked = time.perf_counter() - start, Plan(recipe)
    plan = asked.decided(Results(store))
    stages = {stage.key.digest: stage for stage in (*asked.stages, *plan.stages)}
    return BuildFacts(
        seconds=seconds,
        whole_seconds=sum(store.took(stage.key) or 0.0 for stage in stages.values()),
        size=sum(file.size for file in bundle.manifest.files.values()),
        parameters=parameters(bundle.manifest),
        multiply_adds=_multiply_adds(plan),
    )


def parameters(manifest: Manifest) -> int:
    """Parameters of a bundle's networks, each once."""
    return sum(part.parameters for part in manifest.parts.values() if part.role not in _SAME_WEIGHTS)


def _silent(*_arguments: object, **_options: object) -> None:
    """Report no stage."""


def _multiply_adds(plan: Plan) -> dict[str, int]:
    from exporter.reference.cost import count  # noqa: PLC0415 - torch

    if plan.passes.size_unknown:
        return {}
    return {name: size.multiply_adds for name, size in count(plan.passes.expected_family).items()}

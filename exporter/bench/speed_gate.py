"""The recipe's wish for speed: a short race after the check; its result goes into the bundle, or the bundle is refused."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from engines import plugins
from engines.bundle import Bundle
from engines.errors import RecipeError, SpeedError, UnsupportedError
from exporter import machine
from exporter.bench import diffusers, run
from exporter.models import locate
from exporter.stages import assemble, contents
from exporter.stages.plan import Plan
from exporter.stages.stage import Results, Stage

if TYPE_CHECKING:
    from exporter.recipe.schema import FasterThan, Recipe

#: Rounds that count; an odd number, so that the median is one of them.
REPEATS = 7
_RESULT = "race.json"


def refuse(recipe: Recipe) -> None:
    """Raise RecipeError where nobody is there to race against, before time is spent."""
    wish = recipe.checks.faster_than
    known = [*diffusers.KINDS, *plugins.names("backends")]
    if wish and wish.against not in known and not locate.is_bundle(_place(wish, recipe.root)):
        hint = plugins.did_you_mean(wish.against, known)
        raise RecipeError(f"checks.faster_than.against: {wish.against!r} is not the folder of a bundle{hint}")


def stage(plan: Plan, path: Path) -> Stage[list[str]]:
    """The race of the bundle at `path` as a stage: one that was won is not run again for the same bundle, rival and machine."""
    wish = plan.recipe.checks.faster_than
    if wish is None:
        raise UnsupportedError("the recipe has no checks.faster_than, so there is no race. Add it.")
    options: dict[str, Any] = {**wish.model_dump(), "machine": machine.environment().processor}
    rival = _place(wish, plan.recipe.root)
    if wish.against not in diffusers.KINDS and locate.is_bundle(rival):
        options["digest"] = Bundle.open(rival).manifest.digest

    make, makers = partial(_race, path=path, wish=wish, root=plan.recipe.root), (assemble.lay_out, contents.opened)
    return plan.last_stage("race", make, _notes, options=options, makers=(*makers, type(plan.family)))


def _race(folder: Path, _: Results, path: Path, wish: FasterThan, root: Path) -> None:
    (folder / _RESULT).write_text(json.dumps(hold(path, wish, root)), encoding="utf-8")


def _notes(folder: Path) -> list[str]:
    """The note of a race that was won."""
    return [json.loads((folder / _RESULT).read_text(encoding="utf-8"))]


def hold(path: Path, wish: FasterThan, root: Path) -> str:
    """Race the bundle at `path` at its defaults, batch 1; return the figures in a sentence.

    Raises:
        SpeedError: it is slower than the recipe allows.

    """
    place = _place(wish, root)
    against = wish.against if wish.against in diffusers.KINDS or not place.is_dir() else str(place)
    task = run.task(Bundle.open(path))
    surroundings = machine.environment()
    with run.contestants(path, [against], task, root=root) as field, TemporaryDirectory() as folder:
        (own, other), _ = run.race(field, [1], REPEATS, Path(folder))
    ratio = float(np.median(other.seconds / own.seconds))
    mine, theirs = (each.percentile(50) * 1e3 for each in (own, other))
    sentence = (
        f"{ratio:.2f} times as fast as {wish.against}, at least {wish.ratio:g} is asked: {mine:.4g} ms ({own.runs_on}) against "
        f"{theirs:.4g} ms, medians of {REPEATS} interleaved runs, {task.steps} steps, {task.width} x {task.height} px, "
        f"{surroundings.sentence}"
    )
    if ratio < wish.ratio:
        raise SpeedError(f"too slow: {sentence}")
    return f"speed: {sentence}"


def _place(wish: FasterThan, root: Path) -> Path:
    """A rival's folder, which counts from the recipe's, then from the working directory."""
    places = locate.candidates(wish.against, root)
    return locate.first(places, locate.is_bundle) or places[-1]

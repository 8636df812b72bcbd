"""Which pass of a recipe lost the quality that its gate misses: the recipe is built up to each, and drawn and scored alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from engines.errors import MachineError, ParityError, RecipeError, T2IError
from exporter.bench.quality_gate import MissedFloor, QualityMissed, decide, pictures
from exporter.parity.intervals import bootstrap

if TYPE_CHECKING:
    from exporter.passes import Pass
    from exporter.recipe.schema import Recipe

#: Builds a recipe into a folder that is not there yet, unchecked.
LayOut = Callable[["Recipe", Path], object]
_NONE = "no pass"


@dataclass(frozen=True)
class PassRow:
    """What the pictures are worth after a pass.

    Attributes:
        name: of the pass, with its part.
        numbers: a number of every picture; None where the recipe cannot be built up to here, and `why` says why.

    """

    name: str
    numbers: np.ndarray | None
    why: str = ""


def prefixes(recipe: Recipe, passes: Mapping[str, Mapping[str, Pass]]) -> Iterator[tuple[str, Recipe]]:
    """The recipe up to each of its passes, from none to all, by the last one's name.

    A pass that trains mends what the one before it has cut, so the two are one.
    """
    components = {part: component.model_copy(update={"passes": ()}) for part, component in recipe.components.items()}
    checks = recipe.checks.model_copy(update={"quality": {}, "faster_than": None})
    bare = recipe.model_copy(update={"components": dict(components), "checks": checks})
    yield _NONE, bare
    for part, steps in passes.items():
        names, listed = list(steps), recipe.components[part].passes
        for index in range(len(names)):
            if index + 1 < len(names) and steps[names[index + 1]].kind == "training":
                continue
            first = max((i for i in range(index + 1) if steps[names[i]].kind != "training"), default=0)
            told = ", ".join(steps[name].summary for name in names[first : index + 1])
            components[part] = recipe.components[part].model_copy(update={"passes": listed[: index + 1]})
            yield f"{part}: {told}", bare.model_copy(update={"components": dict(components)})


def blame(error: ParityError, recipe: Recipe, passes: Mapping[str, Mapping[str, Pass]], lay_out: LayOut) -> str:
    """A table for each floor that is surely missed: the score after each pass; and which of them lost most of it.

    Args:
        error: what the gate says; of another error nothing is to blame.
        recipe: of the bundle.
        passes: of each part, by name, in the recipe's order.
        lay_out: builds a recipe.

    Returns:
        The tables; empty where nothing is surely missed.

    """
    if not isinstance(error, QualityMissed) or not error.missed:
        return ""
    *before, (last, _) = prefixes(recipe, passes)
    rows: list[list[PassRow]] = [[] for _ in error.missed]
    for name, shortened in before:
        with TemporaryDirectory() as folder:
            place = Path(folder) / "bundle"
            why = _laid_out(lay_out, shortened, place)
            for missed, own in zip(error.missed, rows, strict=True):
                numbers = None if why else missed.numbers(pictures(place, missed.texts, missed.floor.seed))
                own.append(PassRow(name, numbers, why))
    whole = ([*own, PassRow(last, missed.own)] for missed, own in zip(error.missed, rows, strict=True))
    return "\n".join(table(missed, own) for missed, own in zip(error.missed, whole, strict=True))


def _laid_out(lay_out: LayOut, recipe: Recipe, folder: Path) -> str:
    """Build a recipe; why it cannot be built alone, in a line, or nothing."""
    try:
        lay_out(recipe, folder)
    except MachineError:
        raise
    except RecipeError as error:
        return error.problems[0].splitlines()[0]
    except T2IError as error:
        return str(error).splitlines()[0]
    return ""


def table(missed: MissedFloor, rows: Sequence[PassRow]) -> str:
    """The score after each pass with what it changed, and the sentence that blames one."""
    width = max(len(row.name) for row in rows)
    lines, worst, lost = [f"{missed.score.label} after each pass, of the same prompts and noise:"], "", 0.0
    known, skipped = None, list[str]()
    for row in rows:
        if row.numbers is None:
            lines.append(f"  {row.name:{width}}  cannot be built without what follows: {row.why}")
            skipped.append(row.name)
            continue
        change = ""
        if known is not None:
            margins = row.numbers - known if missed.score.higher_is_better else known - row.numbers
            (low, high), sign = bootstrap(margins), 1 if missed.score.higher_is_better else -1
            ends = sorted((sign * low, sign * high))
            change = f"  {sign * margins.mean():+.4g} ({ends[0]:+.4g} to {ends[1]:+.4g})"
            if high < 0 and margins.mean() < lost:
                worst, lost = " and ".join([*skipped, row.name]), float(margins.mean())
        lines.append(f"  {row.name:{width}}  {row.numbers.mean():.4g}{change}")
        known, skipped = row.numbers, []
    return "\n".join([*lines, _sentence(missed, rows[0], worst)])


def _sentence(missed: MissedFloor, first: PassRow, worst: str) -> str:
    if first.numbers is not None and decide(first.numbers, missed.others, missed.floor, missed.score)[0] is False:
        told = "It is missed without any pass: look at the sampler, the precision and the targets."
        return f"{told} Of the passes, {worst} lost most." if worst else told
    return f"{worst} lost most of it." if worst else "No pass lost it alone, as far as so many prompts can tell."

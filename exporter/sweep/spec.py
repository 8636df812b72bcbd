"""What a sweep asks: a base recipe, axes, which of their combinations, what is measured, and what is allowed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Discriminator, Field, StringConstraints, Tag, ValidationError

from engines.errors import RecipeError
from engines.parallel.picard import Picard
from engines.plugins import did_you_mean
from engines.strict import Frozen
from exporter import scores
from exporter.cluster.resources import Resources
from exporter.recipe import shipped
from exporter.recipe.messages import sentences, unknown_step
from exporter.recipe.schema import Recipe
from exporter.recipe.yaml_source import Document, Place, brief, one_form, place_of
from exporter.sweep.quantities import COST, COST_QUANTITY, QUANTITIES, Constraint, Quantity, score_quantity

Text = Annotated[str, StringConstraints(min_length=1)]
#: Texts, or the file that holds them. The tags of unions are no part of a place in the file.
PromptList = Annotated[
    Annotated[Text, Tag("|file")] | Annotated[tuple[Text, ...], Tag("|texts")],
    Discriminator(lambda value: "|file" if isinstance(value, str) else "|texts"),
]
#: Values of a recipe path, or levels by name.
Levels = Annotated[
    Annotated[dict[Text, dict[Text, Any]], Tag("|levels")] | Annotated[tuple[Any, ...], Tag("|values")],
    Discriminator(lambda value: "|levels" if isinstance(value, dict) else "|values"),
]
#: How a path ends whose list is put behind what stands there already, such as one more pass.
MORE = "+"
#: How paths begin that say how a bundle is run, not how it is built.
RUN = "run"
#: How paths begin that say what a point asks of a machine.
RESOURCES = "resources"


class RunOptions(Frozen):
    """How a bundle is run: points that differ only here share one build. What is left out is the bundle's default."""

    steps: int | None = Field(default=None, ge=1, description="of those that the recipe has tables of")
    sampler: Text | None = Field(default=None, description="instead of a table, such as adaptive:relative=0.1,absolute=0.1")
    parallel: Picard | None = Field(default=None, description="parallel sampling: {window: 8, tolerance: 0.03}")
    guidance_scale: float | None = Field(default=None, allow_inf_nan=False, description="at 1 and less there is no guidance")
    pag_scale: float | None = Field(default=None, allow_inf_nan=False, description="of perturbed attention; at 0 there is none")
    height: int | None = Field(default=None, ge=1, description="in pixels, within the recipe's shapes")
    width: int | None = Field(default=None, ge=1, description="as height")


class Measures(Frozen):
    """What is measured of every point, alike."""

    prompts: PromptList = Field(description="texts, or a file of them, one a line, that counts from the sweep's folder")
    scores: tuple[dict[str, dict[str, Any]], ...] = Field(
        default=({"psnr": {}}, {"ssim": {}}),
        min_length=1,
        description="metrics against the base's pictures, plugins, or Python files; the first is the quality that is compared",
    )
    seed: int = Field(default=0, ge=0, description="of the first picture; the next adds 1")
    shown: int = Field(default=6, ge=1, le=64, description="pictures of each point that the report shows")
    rounds: int = Field(default=7, ge=1, description="timed, each of the base and of the point in turn")


class SearchOptions(Frozen):
    """Which points are tried where there are too many: chosen by what the earlier ones gave (optuna's TPE)."""

    points: int = Field(ge=1, description="how many, besides the base; what failed is one of them")
    seed: int = Field(default=0, ge=0, description="of the choice")


class Sweep(Frozen):
    """A sweep's file."""

    recipe: Text = Field(description="the base: a file beside the sweep's, or a name of `t2iexport list recipes`")
    set: dict[Text, Any] = Field(default_factory=dict, description="changes to the base, by path, of every point")
    axes: dict[Text, Levels] = Field(
        min_length=1, description="a recipe path with a list of values, or a name with levels, each a mapping of paths to values"
    )
    points: tuple[dict[Text, Any], ...] | None = Field(
        default=None, description="grids of levels by axis, one or a list; an axis left out stays as the base has it"
    )
    search: SearchOptions | None = Field(default=None, description="instead of points: {points: 40}")
    resources: Resources = Field(
        default=Resources(), description="that every point asks of a machine; a level may ask for others"
    )
    constraints: tuple[Text, ...] = Field(default=(), description="such as latency < 2 s, memory < 8 GB")
    price: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="of an hour of the machine, in any currency: what pictures cost is a column",
    )
    measures: Measures


#: Paths of levels that are no recipe's, by how they begin.
_BESIDE: Mapping[str, type[Frozen]] = {RUN: RunOptions, RESOURCES: Resources}


@dataclass(frozen=True)
class Level:
    """One value of an axis: its name, and what it sets by dotted path."""

    name: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class SweepFile:
    """A sweep that was read and found to make sense.

    Attributes:
        name: of the file.
        base: file of the base recipe.
        changes: what every point changes in it, by dotted path.
        axes: name → levels by name, in the file's order.
        grids: which combinations: axis → names of levels, each a grid.
        search: how those that are tried are chosen among the grids'; None where all are.
        resources: what every point asks of a machine, unless a level says otherwise.
        constraints: what is allowed.
        price: of an hour of the machine; None where it is not told.
        measures: what is measured.
        prompts: what is drawn.
        quantities: every column, the scores' behind the others.
        root: folder of the sweep's file.

    """

    name: str
    base: Path
    changes: Mapping[str, Any]
    axes: Mapping[str, Mapping[str, Level]]
    grids: tuple[Mapping[str, tuple[str, ...]], ...]
    search: SearchOptions | None
    resources: Resources
    constraints: tuple[Constraint, ...]
    price: float | None
    measures: Measures
    prompts: tuple[str, ...]
    quantities: Mapping[str, Quantity]
    root: Path

    @property
    def quality(self) -> str:
        """The score that points are compared by."""
        return next(scores.name_of(spelled) for each in self.measures.scores for spelled in each)


def load(file: Path) -> SweepFile:
    """Read a sweep's file.

    Raises:
        RecipeError: every problem at once, each with its line.

    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{file}  cannot be read: {error}; name the YAML file of a sweep") from error
    document = Document(text, str(file))
    if document.problems:
        raise RecipeError(document.problems)
    _unify(document.data)
    try:
        asked = Sweep.model_validate_json(json.dumps(document.data), strict=True)
    except ValidationError as error:
        for place, sentence in sentences(Sweep, error):
            document.report(place, sentence)
        raise RecipeError(document.problems) from error
    read = _Reader(document, asked, file.parent).read(file.stem)
    if document.problems:
        raise RecipeError(document.problems)
    return read


def _unify(data: Any) -> None:  # noqa: ANN401 - unchecked YAML
    """Give scores one form."""
    measures = data.get("measures") if isinstance(data, dict) else None
    if isinstance(measures, dict) and isinstance(measures.get("scores"), list):
        measures["scores"] = [one_form(each) for each in measures["scores"]]


class _Reader:
    """Turns what the file says into what a sweep does, and reports what does not make sense."""

    def __init__(self, document: Document, asked: Sweep, root: Path) -> None:
        self._document, self._asked, self._root = document, asked, root

    def read(self, name: str) -> SweepFile:
        axes = {axis: self._levels(axis, levels) for axis, levels in self._asked.axes.items()}
        quantities = self._quantities()
        return SweepFile(
            name=name,
            base=self._base(),
            changes=self._changes(),
            axes=axes,
            grids=self._grids(axes),
            search=self._asked.search,
            resources=self._asked.resources,
            constraints=self._constraints(quantities),
            price=self._asked.price,
            measures=self._asked.measures,
            prompts=self._prompts(),
            quantities=quantities,
            root=self._root,
        )

    def _base(self) -> Path:
        beside = self._root / self._asked.recipe
        try:
            return shipped.find(beside if beside.is_file() else Path(self._asked.recipe))
        except RecipeError as error:
            self._document.report(("recipe",), error.problems[0])
            return beside

    def _changes(self) -> Mapping[str, Any]:
        for path, value in self._asked.set.items():
            self._check(path, ("set", path), [value])
            if path.endswith(MORE) or path.split(".")[0] in _BESIDE:
                self._document.report(("set", path), f"{path!r} is of a level; the base is changed by paths of a recipe")
        return self._asked.set

    def _levels(self, axis: str, levels: Sequence[Any] | Mapping[str, Mapping[str, Any]]) -> dict[str, Level]:
        if isinstance(levels, Mapping):
            found = {name: Level(name, settings) for name, settings in levels.items()}
            for name, settings in levels.items():
                for path, value in settings.items():
                    self._check(path, ("axes", axis, name, path), [value])
        else:
            found = {each.name: each for each in (Level(_spelled(value), {axis: value}) for value in levels)}
            self._check(axis, ("axes", axis), levels)
            if len(found) < len(levels):
                self._document.report(("axes", axis), "has a value twice; keep one")
        if not found:
            self._document.report(("axes", axis), "has no levels, so the grid is empty; give it at least one")
        return found

    def _check(self, path: str, place: Place, values: Sequence[Any]) -> None:
        """Report a path that leads nowhere in a recipe, or among the words of a run."""
        steps = place_of(path.removesuffix(MORE))
        if path.endswith(MORE) and not all(isinstance(value, list) for value in values):
            self._document.report(place, f"{path!r} puts a list behind another; give it lists")
        if not steps:
            self._document.report(place, f"{path!r} is no path of a recipe; write such as sampler.steps or {RUN}.steps")
            return
        beside = _BESIDE.get(str(steps[0]))
        wrong = unknown_step(beside or Recipe, steps[1:] if beside else steps)
        if beside and len(steps) == 1:
            wrong = (), f"names none of its fields{did_you_mean('', list(beside.model_fields))}"
        if wrong:
            self._document.report(place, f"{path!r} is no path of a recipe: {wrong[1]}")

    def _grids(self, axes: Mapping[str, Mapping[str, Level]]) -> tuple[Mapping[str, tuple[str, ...]], ...]:
        if self._asked.points is None:
            return ({axis: tuple(levels) for axis, levels in axes.items()},)
        if self._asked.search is not None:
            self._document.report(("search",), "chooses among all combinations of the axes; leave points out, or search")
        if not self._asked.points:
            self._document.report(("points",), "is empty, so there is nothing to build; leave it out for the full grid")
        found = []
        for index, grid in enumerate(self._asked.points):
            chosen: dict[str, tuple[str, ...]] = {}
            for axis, named in grid.items():
                place = ("points", index, axis)
                if axis not in axes:
                    self._document.report(place, f"unknown axis{did_you_mean(axis, list(axes))}")
                    continue
                # A list is several levels, but where an axis's values are lists themselves, one of them.
                whole = isinstance(named, list) and _spelled(named) in axes[axis]
                names = [_spelled(each) for each in (named if isinstance(named, list) and not whole else [named])]
                if not names:
                    self._document.report(place, "names no level, so this grid is empty")
                for each in (each for each in names if each not in axes[axis]):
                    self._document.report(place, f"unknown level {each!r}{did_you_mean(each, list(axes[axis]))}")
                chosen[axis] = tuple(names)
            found.append(chosen)
        return tuple(found)

    def _quantities(self) -> dict[str, Quantity]:
        found = {**QUANTITIES, **({} if self._asked.price is None else {COST: COST_QUANTITY})}
        for index, each in enumerate(self._asked.measures.scores):
            place = ("measures", "scores", index)
            if len(each) != 1:
                self._document.report(place, f"has {len(each)} names; write '- score' or '- score: {{option: value}}', one each")
                continue
            ((spelled, options),) = each.items()
            try:
                score = scores.load(spelled, options, self._root)
            except RecipeError as error:
                for problem in error.problems:
                    self._document.report(place, problem)
                continue
            if scores.name_of(spelled) in found:
                self._document.report(place, f"{scores.name_of(spelled)!r} is measured already; keep one")
            found[scores.name_of(spelled)] = score_quantity(score.label, higher_is_better=score.higher_is_better)
        return found

    def _constraints(self, quantities: Mapping[str, Quantity]) -> tuple[Constraint, ...]:
        found = []
        for index, text in enumerate(self._asked.constraints):
            try:
                found.append(Constraint.parse(text, quantities))
            except ValueError as error:
                self._document.report(("constraints", index), str(error))
        return tuple(found)

    def _prompts(self) -> tuple[str, ...]:
        asked, place = self._asked.measures.prompts, ("measures", "prompts")
        if isinstance(asked, tuple):
            found = asked
        else:
            try:
                text = (self._root / asked).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                self._document.report(place, f"{asked!r} cannot be read ({error}); it counts from the sweep's folder")
                return ()
            found = tuple(line.strip() for line in text.splitlines() if line.strip())
        if not found:
            self._document.report(place, "has no prompt; give at least one")
        return found


def _spelled(value: Any) -> str:  # noqa: ANN401 - a recipe's value
    """A value as the name of a level."""
    if isinstance(value, list) and len(value) == 1:
        return _spelled(value[0])
    if isinstance(value, dict) and len(value) == 1:
        ((key, inner),) = value.items()
        return f"{key} {_spelled(inner)}" if inner else key
    return value if isinstance(value, str) else brief(value)

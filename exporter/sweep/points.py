"""The points of a sweep: combinations of levels, each with its recipe, or with the reason why it has none."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from pydantic import ValidationError

from engines.errors import RecipeError, T2IError, UnsupportedError
from engines.strict import Frozen
from exporter.bench.drawing import require_prompts_alone
from exporter.cluster.resources import ANYTHING, Resources
from exporter.recipe.messages import sentences
from exporter.recipe.schema import Recipe
from exporter.recipe.yaml_source import dotted, place_of
from exporter.stages.plan import Plan
from exporter.stages.vendors import vendors
from exporter.sweep.spec import MORE, RESOURCES, RUN, Level, RunOptions, SweepFile

#: What the base is called, and the level of an axis on which the base has none of the levels.
BASE = "base"
#: The level of an axis that a point leaves to another one, which sets the same path.
LEFT = "–"
#: How a bundle is run → what it does by itself.
_USUAL = {
    "run.steps": "sampler.steps",
    "run.guidance_scale": "sampler.guidance.scale",
    "run.pag_scale": "sampler.guidance.pag.scale",
    "run.height": "shapes.height",
    "run.width": "shapes.width",
}
T = TypeVar("T", bound=Frozen)
#: Points from which on whoever asks must say that it is meant.
MANY = 10_000


@dataclass(frozen=True)
class Point:
    """One combination.

    Attributes:
        name: the levels in which it is not the base.
        levels: axis → level, of every axis; BASE where it stays as the base has it.
        assignments: what turns the base's recipe into this one's, as `--set` takes it.
        recipe: None where there is none, and `problem` says why.
        run: how the bundle is run.
        resources: what it asks of a machine.
        problem: why it cannot be, in sentences.
        is_base: whether it is the base, which the others are compared with.

    """

    name: str
    levels: Mapping[str, str]
    assignments: tuple[str, ...]
    recipe: Recipe | None
    run: RunOptions
    resources: Resources = ANYTHING
    problem: str = ""
    is_base: bool = False

    @cached_property
    def digest(self) -> str:
        """What its result is kept under: two points of one recipe, run alike, have one result."""
        return digest({**self._built, "run": self.run.model_dump(mode="json")})

    @cached_property
    def bundle(self) -> str:
        """What its bundle is kept under: that of every point of its recipe."""
        return digest(self._built)

    @property
    def _built(self) -> Mapping[str, object]:
        """Its recipe, and where that matters the machine that it is for."""
        asked = self.resources.model_dump(mode="json", exclude_none=True)
        return {"recipe": self._recipe, **({RESOURCES: asked} if asked else {})}

    @property
    def _recipe(self) -> object:
        return self.recipe.model_dump(mode="json") if self.recipe else [self.assignments, self.problem]


def digest(content: object) -> str:
    """A name of 16 hexadecimal digits for plain data."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


def count(asked: SweepFile) -> int:
    """Points of the grids, before equal ones are found."""
    return sum(math.prod(map(len, grid.values())) for grid in asked.grids)


class Combinations:
    """Makes points of a sweep's levels.

    Attributes:
        base: what the others are compared with.

    Raises:
        RecipeError: the base is no recipe.

    """

    def __init__(self, asked: SweepFile) -> None:
        self._asked, changes = asked, _assignments(asked.changes)
        self._recipe = Recipe.load(asked.base, changes)
        levels = {axis: _base_level(asked, axis, self._recipe) for axis in asked.axes}
        self.base = Point(BASE, levels, changes, self._recipe, RunOptions(), asked.resources, is_base=True)

    def point(self, named: Mapping[str, str]) -> Point:
        """The point of the levels that are named, by axis; the other axes stay as the base has them."""
        found = _point(self._asked, named, self.base.levels, self._recipe)
        return self.base if found.levels == self.base.levels else found


def points(asked: SweepFile, *, many: bool = False) -> tuple[Point, ...]:
    """Every point once, the base first, whether the grids hold it or not.

    Raises:
        UnsupportedError: there are more than MANY, and that is not said to be meant.
        RecipeError: the base is no recipe, or none of the points is.

    """
    if (total := count(asked)) > MANY and not many:
        told = f"{asked.name} has {total:,} points, more than {MANY:,}."
        raise UnsupportedError(f"{told} Name fewer, let search: {{points: 100}} choose among them, or say --yes.")
    made = Combinations(asked)
    found = {tuple(made.base.levels.values()): made.base}
    for named in _combinations(asked):
        point = made.point(named)
        found.setdefault(tuple(point.levels.values()), point)
    others = list(found.values())[1:]
    if others and all(point.problem for point in others):
        told = f"none of the {len(others)} points is a recipe; the first is not because"
        raise RecipeError([told, *others[0].problem.splitlines()])
    return tuple(found.values())


def plan_digest(point: Point) -> str:
    """A name for all that a build would do: weights, options, code and libraries; empty where the point cannot be planned.

    Raises:
        UnsupportedError: it is the base, and needs more than prompts to draw.

    """
    if point.recipe is None:
        return ""
    try:
        with vendors(f"model.source {point.recipe.model.source}"):
            plan = Plan(point.recipe)
            # What hangs on a search is planned when that is done, so all that the recipe says counts.
            found = digest([*(str(stage.key) for stage in plan.stages), point.recipe.model_dump_json() if plan.search else ""])
    except T2IError:
        return ""  # the build says why
    if point.is_base:
        require_prompts_alone(plan.family.inputs, "a sweep")
    return found


def _combinations(asked: SweepFile) -> Iterator[dict[str, str]]:
    for grid in asked.grids:
        for names in itertools.product(*grid.values()):
            yield dict(zip(grid, names, strict=True))


def _base_level(asked: SweepFile, axis: str, base: Recipe) -> str:
    """Which level of an axis the base has: one that changes nothing."""
    for name in asked.axes[axis]:
        point = _point(asked, {axis: name}, {}, base)
        same = (base.model_dump(), RunOptions(), asked.resources)
        if point.recipe is not None and (point.recipe.model_dump(), point.run, point.resources) == same:
            return name
    return BASE


def _assignments(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """As `--set` takes them; JSON is YAML, and has one way to write each value."""
    return tuple(f"{path}={json.dumps(value, ensure_ascii=False)}" for path, value in settings.items())


def _is_left(levels: Iterable[Level], others: Sequence[str]) -> bool:
    """Whether other axes decide what an axis is about: one path of theirs is met by each of its levels that set something."""
    setting = [[_USUAL.get(path, path) for path in level.settings] for level in levels if level.settings]
    return any(all(_met(other, paths) for paths in setting) for other in others)


def _met(path: str, others: Iterable[str]) -> bool:
    """Whether one of the others sets what the path does: the same, what is around it, or what is inside."""
    steps = place_of(path.removesuffix(MORE))
    found = (place_of(other.removesuffix(MORE)) for other in others)
    return any(steps[: len(other)] == other[: len(steps)] for other in found)


def _put(settings: Mapping[str, Any], more: Mapping[str, Any], base: Recipe) -> dict[str, Any]:
    """Settings with others over them; a list for `path+` goes behind the one that is there, in them or in the base."""
    found = dict(settings)
    for path, value in more.items():
        plain = path.removesuffix(MORE)
        found[plain] = [*(found[plain] if plain in found else _value(base, plain)), *value] if path != plain else value
    return found


def _value(recipe: Recipe, path: str) -> list[Any]:
    """The list that stands at a path of a recipe; an empty one where nothing does."""
    value: Any = recipe.model_dump(mode="json", exclude_unset=True)
    for step in place_of(path):
        if isinstance(step, int) or not isinstance(value, dict) or value.get(step) is None:
            return []
        value = value[step]
    return value if isinstance(value, list) else []


def _point(asked: SweepFile, named: Mapping[str, str], at: Mapping[str, str], base: Recipe) -> Point:
    """The point of the levels that a grid names; the base's level of another axis is `at` that axis."""
    chosen = {axis: asked.axes[axis][name].settings for axis, name in named.items()}
    levels, settings = dict[str, str](), dict[str, Any]()
    for axis, known in asked.axes.items():
        others = [path for other, own in chosen.items() if other != axis for path in own]
        if axis in named:
            levels[axis] = named[axis]
            # What leaves the base as it is need not be said, unless another axis says otherwise.
            said = {path: value for path, value in chosen[axis].items() if named[axis] != at.get(axis) or _met(path, others)}
            settings = _put(settings, said, base)
        else:
            levels[axis] = LEFT if _is_left(known.values(), others) else at.get(axis, BASE)
    running, asking = (_below(settings, kind) for kind in (RUN, RESOURCES))
    built = {path: value for path, value in settings.items() if path.split(".")[0] not in {RUN, RESOURCES}}
    assignments = _assignments({**{path: value for path, value in asked.changes.items() if path not in built}, **built})
    problems = list[str]()
    run = _validated(RunOptions, RUN, running, problems)
    resources = _validated(Resources, RESOURCES, asked.resources.model_dump(exclude_none=True) | asking, problems)
    recipe: Recipe | None = None
    try:
        recipe = Recipe.load(asked.base, assignments)
    except RecipeError as error:
        problems += error.problems
    name = _name(levels, at)
    if recipe is None or problems:
        return Point(name, levels, assignments, None, run, resources, "\n".join(problems))
    return Point(name, levels, assignments, recipe, _without_defaults(run, recipe), resources)


def _below(settings: Mapping[str, Any], kind: str) -> dict[str, Any]:
    return {path.split(".", 1)[1]: value for path, value in settings.items() if path.split(".")[0] == kind}


def _validated(kind: type[T], where: str, settings: Mapping[str, Any], problems: list[str]) -> T:
    """Settings as a model; one without any where they are wrong, and what is wrong among the problems."""
    try:
        return kind.model_validate_json(json.dumps(settings), strict=True)
    except ValidationError as error:
        problems += [f"{where}.{dotted(place)}: {sentence}" for place, sentence in sentences(kind, error)]
        return kind()


def _name(levels: Mapping[str, str], at: Mapping[str, str]) -> str:
    """What makes the point another than the base; a level that has no letter says of what it is."""
    told = {axis: level for axis, level in levels.items() if level not in {at.get(axis), LEFT}}
    words = (level if re.search(r"[^\W\d]", level) else f"{axis.rpartition('.')[2]} {level}" for axis, level in told.items())
    return " · ".join(words) or BASE


def _without_defaults(run: RunOptions, recipe: Recipe) -> RunOptions:
    """The same without what the bundle does by itself."""
    shapes, sampler = recipe.shapes, recipe.sampler
    usual: dict[str, Any] = {"height": shapes.height[1], "width": shapes.width[1]}
    usual |= {"steps": sampler.steps[0], "guidance_scale": sampler.guidance.scale}
    usual |= {"pag_scale": sampler.guidance.pag.scale} if sampler.guidance.pag else {}
    return run.model_copy(update={name: None for name, value in usual.items() if getattr(run, name) == value})

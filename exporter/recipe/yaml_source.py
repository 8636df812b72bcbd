"""A recipe's YAML as plain data that knows its lines, with `--set` overrides; refuses what a recipe has no use for."""

from __future__ import annotations

import io
import json
import math
import re
import warnings
from typing import Any

from engines.errors import MissingDependency

Place = tuple[str | int, ...]
#: A recipe is a page; anything this long is something else. The parser takes time with the square of open brackets.
_LIMIT, _MARKS = 2**16, 2000
_CORE = "tag:yaml.org,2002:"
_PATH = re.compile(r"[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*|\[\d{1,4}\])*")


def dotted(place: Place) -> str:
    """`("components", "unet", "passes", 0)` → `components.unet.passes[0]`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).removeprefix(".")


def brief(value: object) -> str:
    """A value as a recipe would spell it, cut to a few words."""
    text = repr(value) if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}…"


class Document:
    """YAML 1.2 as dicts, lists and scalars, and where each of them stands.

    Attributes:
        data: the content; keys are strings.
        found: problems, each with its line; those of overrides stand before line 1.
        shown: the file's name in messages.

    """

    def __init__(self, text: str, shown: str) -> None:
        self.shown, self.found = shown, list[tuple[int, str]]()
        self._lines: dict[Place, int] = {(): 1}
        self._overrides: dict[Place, str] = {}
        self._anchors: set[str] = set()
        self._unread: set[Place] = set()  # where None stands for what cannot be read
        self.data: Any = self._read(text)

    @property
    def problems(self) -> list[str]:
        """Every problem once, in the order of the file: `file:line  path: sentence`."""
        return list(dict.fromkeys(text for _, text in sorted(self.found, key=lambda problem: problem[0])))

    def where(self, place: Place) -> str:
        """`recipes/x.yaml:14`, or `--set sampler.steps=[0]:` for what an override put there."""
        line, override = self._origin(place)
        return f"--set {override}:" if override else f"{self.shown}:{line}"

    def problem(self, place: Place, sentence: str) -> str:
        """One line that says where, what and what to do."""
        return f"{self.where(place)}  {dotted(place)}: {sentence}" if place else f"{self.where(place)}  {sentence}"

    def report(self, place: Place, sentence: str, *, named: bool = False) -> None:
        """Keep a problem, unless a value there, or within it, could not be read: then that is the problem, and told already.

        Not so where the problem is how the place is `named`, which no value changes.
        """
        if not named and any(unread[: len(place)] == place for unread in self._unread):
            return
        self.found.append((self._origin(place)[0], self.problem(place, sentence)))

    def _origin(self, place: Place) -> tuple[int, str]:
        """The override that put a value there, else the nearest line above."""
        above = [place[:end] for end in range(len(place), -1, -1)]
        override = next((self._overrides[each] for each in above if each in self._overrides), "")
        return (0, override) if override else (next(self._lines[each] for each in above if each in self._lines), "")

    def override(self, assignment: str) -> None:
        """Put `path.to.field=yaml` into the data, making mappings on the way."""
        path, equals, value = assignment.partition("=")
        place = place_of(path)
        given = Document(value, "")
        for problem in given.problems:
            self._refuse(assignment, f"its value {problem.partition('  ')[2]}")
        # What it replaces is read no more.
        self._unread = {each for each in self._unread if each[: len(place)] != place}
        self._unread |= {(*place, *each) for each in given._unread}
        if not equals or not place:
            self._refuse(assignment, "must read path.to.field=value, such as sampler.steps=[8]")
            return
        target = self.data
        for depth, step in enumerate(place):
            if problem := _unfit(target, step):
                self._refuse(assignment, f"{dotted(place[:depth]) or 'the recipe'} {problem}")
                return
            if depth == len(place) - 1:
                target[step] = given.data
            elif isinstance(target, dict) and target.get(step) is None:
                target[step] = {}
            target = target[step]
        self._overrides = {old: text for old, text in self._overrides.items() if old[: len(place)] != place}
        self._overrides[place] = assignment

    def _refuse(self, assignment: str, sentence: str) -> None:
        self.found.append((0, f"--set {assignment}:  {sentence}"))

    def text(self, header: str) -> str:
        """The data as YAML under a comment; reading it gives the same data."""
        # JSON is YAML 1.2, and has one way to write each value; comments are gone because they may no longer be true.
        body = "".join(f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in self.data.items())
        return f"# {header}\n{body}"

    def _read(self, text: str) -> Any:  # noqa: ANN401 - that is what YAML holds
        yaml, errors = _ruamel()
        if len(text) > _LIMIT or sum(map(text.count, "[{-?")) > _MARKS:
            self.report(
                (), f"is longer than {_LIMIT} characters, or has more than {_MARKS} lists and mappings; a recipe is a page"
            )
            return {}
        try:
            with warnings.catch_warnings(action="ignore"):  # what it warns of, an anchor used twice, is a problem here
                root = yaml.compose(io.StringIO(text))
            return {} if root is None else self._plain(root, (), yaml.constructor)
        except RecursionError:
            self.report((), "is nested too deeply; a recipe has at most a dozen levels")
        except errors.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self._lines[()] = mark.line + 1 if mark else 1
            told = ": ".join(filter(None, [error.context, error.problem]))
            self.report((), f"is not YAML: {' '.join(told.split())}")
        except errors.YAMLError as error:
            self.report((), f"is not YAML: {' '.join(str(error).split())}")
        return {}

    def _plain(self, node: Any, place: Place, constructor: Any) -> Any:  # noqa: ANN401
        self._lines.setdefault(place, node.start_mark.line + 1)
        if node.anchor:
            told = f"the anchor &{node.anchor} is not part of a recipe; write the value where it is used"
            if node.anchor in self._anchors:  # read once: a few lines of aliases can stand for gigabytes
                return self._refuse_value(place, told)
            self.report(place, told)
            self._anchors.add(node.anchor)
        kind = str(node.tag).removeprefix(_CORE)
        if kind == "map":
            return self._mapping(node, place, constructor)
        if kind == "seq":
            return [self._plain(child, (*place, index), constructor) for index, child in enumerate(node.value)]
        return self._scalar(node, kind, place, constructor)

    def _scalar(self, node: Any, kind: str, place: Place, constructor: Any) -> Any:  # noqa: ANN401
        if kind in {"str", "timestamp"}:
            return node.value
        if kind not in {"int", "float", "bool", "null"}:
            return self._refuse_value(place, f"the tag {node.tag} is not part of a recipe; write a plain value")
        value = getattr(constructor, f"construct_yaml_{kind}")(node)
        if isinstance(value, float) and not math.isfinite(value):
            return self._refuse_value(place, f"{node.value} is not a number that a recipe can hold")
        return value

    def _refuse_value(self, place: Place, sentence: str) -> None:
        self.report(place, sentence)
        self._unread.add(place)

    def _mapping(self, node: Any, place: Place, constructor: Any) -> dict[str, Any]:  # noqa: ANN401
        found: dict[str, Any] = {}
        for key, value in node.value:
            name = str(key.value) if isinstance(key.value, str) else "a list or mapping"
            inner = (*place, name)
            line = key.start_mark.line + 1
            if key.tag != f"{_CORE}str" or key.anchor:
                self._lines.setdefault(inner, line)
                self.report(inner, "cannot be a key; keys are words, quoted where they look like a number")
            elif name in found:
                self.report(inner, f"stands twice, here and on line {line}; keep one")
            else:
                self._lines[inner] = line
                found[name] = self._plain(value, inner, constructor)
        return found


def place_of(path: str) -> Place:
    """`steps[0].x` → `("steps", 0, "x")`; nothing where that is not how a path reads."""
    if not _PATH.fullmatch(path.strip()):
        return ()
    return tuple(int(step) if step.isdigit() else step for step in re.findall(r"[^.\[\]]+", path.strip()))


def _unfit(target: Any, step: str | int) -> str:  # noqa: ANN401 - unchecked YAML
    """Why a step of a path leads nowhere from there; empty where it does not."""
    if not isinstance(target, list if isinstance(step, int) else dict):
        return f"is not {'a list' if isinstance(step, int) else 'a mapping'}"
    if isinstance(step, int) and step >= len(target):
        return f"has {len(target)} entries, counted from [0]"
    return ""


def _ruamel() -> tuple[Any, Any]:
    try:
        from ruamel.yaml import YAML, error  # noqa: PLC0415 - belongs to the [compile] extra; the CLI starts without it
    except ImportError as missing:
        raise MissingDependency("ruamel.yaml", "compile") from missing
    return YAML(typ="safe", pure=True), error


def one_form(entry: Any) -> Any:  # noqa: ANN401 - unchecked YAML
    """`- name` and `- name:` as `- name: {}`; anything else stays as it is."""
    if isinstance(entry, str):
        return {entry: {}}
    if isinstance(entry, dict) and len(entry) == 1:
        return {name: {} if options is None else options for name, options in entry.items()}
    return entry

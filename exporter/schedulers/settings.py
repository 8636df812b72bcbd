"""A scheduler's configuration as people bring it: values of the wrong type, and the value that a failure is due to."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError

from engines.errors import UnsupportedError
from exporter.recipe.yaml_source import brief

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}
_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True)


@dataclass(frozen=True)
class Settings:
    """What a scheduler is made with.

    Attributes:
        kind: its class in diffusers.
        chosen: arguments of its constructor.
        changed: those of them that the recipe sets; the model's own config has the rest.

    """

    kind: Any
    chosen: Mapping[str, Any]
    changed: frozenset[str] = frozenset()

    def mistyped(self, keys: Iterable[str] | None = None) -> dict[str, str]:
        """Key → what it must be, of every value that the class's own annotations do not take and that is not its default."""
        hints, found = typing.get_type_hints(self.kind.__init__), dict[str, str]()
        for key in self.chosen if keys is None else keys:
            if key in hints and not self._default(key) and not _takes(hints[key], self.chosen[key]):
                found[key] = _words(hints[key])
        return found

    def explained(self, error: UnsupportedError, attempt: Callable[[Mapping[str, Any]], object]) -> UnsupportedError:
        """The error, with the one value that it is due to: that without which, by the class's default, `attempt` succeeds."""
        for key, value in self.chosen.items():
            if self._default(key) or not _succeeds(attempt, {name: self.chosen[name] for name in self.chosen if name != key}):
                continue
            recipe, wanted = key in self.changed, self.mistyped([key])
            place = "the recipe's sampler.config" if recipe else "the model's own scheduler_config.json"
            must = f", and must be {wanted[key]}" if wanted else ""
            do = f"{'Change it' if recipe else f'Set {key} in the recipe'}; {self._usual(key)}"
            return UnsupportedError(f"{str(error).splitlines()[0]}\n{key} in {place} is {brief(value)}{must}. {do}.")
        return error

    def _usual(self, key: str) -> str:
        if key in self.changed:
            return f"left out it is {brief(inspect.signature(self.kind.__init__).parameters[key].default)}, or as the model's own"
        default = inspect.signature(self.kind.__init__).parameters[key].default
        return f"sampler: {{config: {{{key}: …}}}}; most models have {brief(default)}"

    def _default(self, key: str) -> bool:
        default = inspect.signature(self.kind.__init__).parameters[key].default
        return type(self.chosen[key]) is type(default) and bool(np.all(self.chosen[key] == default))


def _succeeds(attempt: Callable[[Mapping[str, Any]], object], config: Mapping[str, Any]) -> bool:
    try:
        attempt(config)
    except UnsupportedError:
        return False
    return True


def _takes(hint: Any, value: Any) -> bool:  # noqa: ANN401 - annotations have no common type
    try:
        TypeAdapter(hint, config=_STRICT).validate_python(value)
    except ValidationError:
        return False
    except PydanticSchemaGenerationError:
        return True
    return True


def _words(hint: Any) -> str:  # noqa: ANN401
    """An annotation in plain words."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in {typing.Union, types.UnionType}:
        return " or ".join(dict.fromkeys(_words(each) for each in inner if each is not type(None)))
    if origin is Literal:
        return f"one of {', '.join(map(repr, inner))}"
    if isinstance(hint, type) and issubclass(hint, np.ndarray):
        return "a list of numbers"
    return f"a list of {_words(inner[0]).removeprefix('a ')}s" if origin is list and inner else _WORDS.get(hint, str(hint))

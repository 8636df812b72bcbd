"""pydantic's errors as a recipe's problems: where, and a sentence in plain words that says what to write instead."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from engines.plugins import did_you_mean
from exporter.recipe.yaml_source import Place, brief

#: How the sentence begins of a field that there is none of that name.
UNKNOWN = "unknown field"

#: What a value has to be, by pydantic's name for not being it.
_KINDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "tuple_type": "a list",
    "list_type": "a list",
    "finite_number": "a finite number",
}
#: The same for bounds, with pydantic's name for the bound.
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}
#: Whole sentences, with what pydantic tells beside.
_PHRASES = {
    "literal_error": "must be {expected}, not {given}",
    "too_short": "has {actual_length} values, and needs at least {min_length}",
    "too_long": "has more values than the {max_length} that it takes: {given}",
    "string_too_short": "is empty; give a text, or leave the line out",
    "value_error": "{error}",
}


def sentences(model: type[BaseModel], error: ValidationError) -> Iterator[tuple[Place, str]]:
    """Place and sentence of every problem."""
    found = error.errors(include_url=False)
    places = [_place(each["loc"], each["type"]) for each in found]
    for problem, place in zip(found, places, strict=True):
        if problem["type"] == "too_short" and any(other[:-1] == place for other in places if other):
            continue  # pydantic counts what is left when wrong values are taken out
        if problem["type"] == "missing" and place and isinstance(place[-1], int):
            yield place[:-1], f"has {len(problem['input'])} values, {brief(problem['input'])}, and needs more"
        else:
            yield place, _known(model, place, problem["type"]) or _sentence(problem)


def _place(steps: Place, kind: str) -> Place:
    """Where a problem is: a tag of a union begins with a bar and is no part of it, but a key that nobody knows may too."""
    own = len(steps) - 1 if kind == "extra_forbidden" else None
    return tuple(step for number, step in enumerate(steps) if number == own or not str(step).startswith("|"))


def unknown_step(model: type[BaseModel], place: Place) -> tuple[Place, str] | None:
    """The first step of a place that names no field of the model, with what it is close to; None where all lead on."""
    for end in range(1, len(place) + 1):
        fields = getattr(_at(model, place[: end - 1]), "model_fields", None)
        if fields is not None and place[end - 1] not in fields:
            return place[:end], f"{UNKNOWN}{_meant(model, str(place[end - 1]), list(fields))}"
    return None


def _known(model: type[BaseModel], place: Place, kind: str) -> str:
    """What can be said only by looking at the model; empty for the rest."""
    if kind == "missing":
        told = _told(model, place)
        return f"missing{f'; give it: {told}' if told else ''}"
    if kind == "extra_forbidden":
        fields = list(getattr(_at(model, place[:-1]), "model_fields", {}))
        return f"{UNKNOWN}{_meant(model, str(place[-1]), fields)}"
    return ""


def _meant(model: type[BaseModel], name: str, fields: list[str]) -> str:
    """Where a field stands that is not known where it was found, or what its name is close to there."""
    if elsewhere := list(_places(model, name)):
        return f" here; it is {' or '.join(elsewhere)}"
    return did_you_mean(name, fields) if fields else "; it takes no options"


def _places(model: type[BaseModel], name: str, before: str = "") -> Iterator[str]:
    """Where fields of a name stand, in the models that a model has as fields and not in its lists and mappings."""
    for key, field in model.model_fields.items():
        if key == name:
            yield f"{before}{key}" if before else f"{key}, at the top"
        inner = _model(field.annotation)
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _places(inner, name, f"{before}{key}.")


def _sentence(problem: Any) -> str:  # noqa: ANN401 - pydantic's ErrorDetails, with keys that depend on the type
    kind, given, limits = problem["type"], problem["input"], problem.get("ctx", {})
    if kind in _KINDS:
        example = f"; write [{brief(given)}]" if _KINDS[kind] == "a list" and isinstance(given, int | float | str) else ""
        return f"must be {_KINDS[kind]}, not {brief(given)}{example}"
    if kind in _BOUNDS:
        words, name = _BOUNDS[kind]
        return f"must be {words} {limits[name]}, not {brief(given)}"
    if kind in _PHRASES:
        return _PHRASES[kind].format(**limits, given=brief(given))
    return f"{problem['msg'][:1].lower()}{problem['msg'][1:]}, not {brief(given)}"


def _told(model: type[BaseModel], place: Place) -> str | None:
    known = getattr(_at(model, place[:-1]), "model_fields", {}).get(place[-1])
    if known is None:
        return None
    about = known.description or (known.annotation.__doc__ if hasattr(known.annotation, "model_fields") else None)
    return about.splitlines()[0] if about else None


def _at(annotation: Any, place: Place) -> Any:  # noqa: ANN401 - type annotations have no common type
    """The model that stands at a place: fields of models, values of mappings, items of tuples."""
    if not place:
        return _model(annotation)
    inner = [argument for argument in typing.get_args(annotation) if argument is not Ellipsis]
    if typing.get_origin(annotation) in {dict, list, tuple}:
        return _at(inner[-1], place[1:]) if inner else None
    if hasattr(annotation, "model_fields"):
        fields = annotation.model_fields
        return _at(fields[place[0]].annotation, place[1:]) if place[0] in fields else None
    # A union, or a type with more said of it.
    return next((found for argument in inner if (found := _at(argument, place)) is not None), None)


def _model(annotation: Any) -> Any:  # noqa: ANN401
    """The model in `Model`, `Model | None` or `Annotated[Model, …]`; what holds several of them is none itself."""
    if typing.get_origin(annotation) in {dict, list, tuple}:
        return annotation
    if isinstance(annotation, type) and hasattr(annotation, "model_fields"):
        return annotation
    return next((argument for argument in typing.get_args(annotation) if hasattr(argument, "model_fields")), annotation)

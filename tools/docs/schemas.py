"""Closed schemas as tables: the recipe with the options of every backend and pass, and the manifest of a bundle."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from engines import manifest, plugins
from exporter.recipe import json_schema as recipe
from exporter.sweep.spec import Measures, RunOptions, SearchOptions, Sweep
from tools.docs.blocks import table

Schema = Mapping[str, Any]
#: JSON Schema's words for the lower and the upper bound.
_BOUNDS = (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum"))


def bundle_formats() -> str:
    """Which format is written, and which are read."""
    written = manifest.FORMAT
    earlier = [number for number in _choices(manifest.Manifest.model_json_schema()["properties"]["format"]) if number != written]
    read = f" Bundles of format {' and '.join(', '.join(map(str, earlier)).rsplit(', ', 1))} open too." if earlier else ""
    newer = "A bundle of a newer format is refused with a message to install a newer t2iexport."
    return f"This release writes format **{written}**.{read} {newer}\n"


def manifest_fields() -> str:
    """Every object of the manifest: its keys, their types and defaults."""
    schema = manifest.Manifest.model_json_schema()
    objects = {"Manifest": schema, **{name: one for name, one in schema["$defs"].items() if "properties" in one}}
    return "\n".join(f"### {name}\n\n{_object(one)}" for name, one in objects.items())


def recipe_fields() -> str:
    """Every object of a recipe but the options of plugins."""
    schema = recipe.schema()
    own = {name: one for name, one in schema["$defs"].items() if "." not in name}
    return "\n".join(f"### {name}\n\n{_object(one)}" for name, one in {"Recipe": schema, **own}.items())


def sweep_fields() -> str:
    """Every object of a sweep's file."""
    return "\n".join(
        f"### {one.__name__}\n\n{_object(one.model_json_schema())}" for one in (Sweep, SearchOptions, Measures, RunOptions)
    )


def score_fields() -> str:
    """The options of every plugin that is a score."""
    found = {name: plugins.load("scores", name) for name in plugins.names("scores")}
    return "\n".join(f"### {name}\n\n{_object(one.model_json_schema())}" for name, one in found.items())


def options(kind: str) -> str:
    """The options of every plugin of one kind: `backends` or `passes`."""
    found = {name: one for name, one in recipe.schema()["$defs"].items() if name.startswith(f"{kind}.")}
    names = [name for name in found if name.count(".") == 1]
    sections = []
    for name in names:
        sections.append(f"### {name.rpartition('.')[2]}\n\n{_object(found[name])}")
        inner = {other: one for other, one in found.items() if other.startswith(f"{name}.")}
        sections += [f"{other.rpartition('.')[2]}: {_object(one)}" for other, one in inner.items()]
    return "\n".join(sections)


def _object(schema: Schema) -> str:
    about, attributes = _split(schema.get("description", ""), schema["properties"])
    required = set(schema.get("required", ()))
    rows = []
    for key, field in schema["properties"].items():
        default = "required" if key in required else _default(field)
        rows.append([f"`{key}`", _type(field), default, (field.get("description") or attributes.get(key, "")).rstrip(".")])
    return f"{about}\n\n{table(['key', 'type', 'default', 'what'], rows)}"


def _default(field: Schema) -> str:
    """What an absent key stands for; an object's own defaults are in its table."""
    if "$ref" in field:
        return "its defaults"
    return f"`{json.dumps(field.get('default', {}))}`"


def _split(docstring: str, keys: Collection[str]) -> tuple[str, Mapping[str, str]]:
    """What a class docstring says, one paragraph a line, and what it says of each key: under Attributes, or as `key` does so."""
    text, _, listed = inspect.cleandoc(docstring).partition("Attributes:\n")
    attributes, name = dict[str, str](), ""
    for line in inspect.cleandoc(listed).splitlines():
        if match := re.match(r"(\w+): (.*)", line):
            name, attributes[match[1]] = match[1], match[2]
        elif line.strip():
            attributes[name] += f" {line.strip()}"
    kept = []
    for paragraph in (" ".join(lines.split()) for lines in re.split(r"\n\s*\n|\n(?=`\w+`: )", text.strip())):
        of_key = re.match(r"`(\w+)`(?:: | is | )(.*)", paragraph)
        if of_key and of_key[1] in keys:
            attributes[of_key[1]] = of_key[2]
        else:
            kept.append(paragraph)
    return "\n\n".join(kept), attributes


def _choices(schema: Schema) -> list[Any]:
    return schema["enum"] if "enum" in schema else [schema["const"]]


def _type(schema: Schema) -> str:
    """A JSON Schema in words."""
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2].rpartition(".")[2]
    if "enum" in schema or "const" in schema:
        choices = [f"`{choice if isinstance(choice, str) else json.dumps(choice)}`" for choice in _choices(schema)]
        return " or ".join(filter(None, [", ".join(choices[:-1]), choices[-1]]))
    if several := schema.get("anyOf") or schema.get("allOf"):
        return _either(several)
    kind: str = schema.get("type", "any value")
    if kind == "array":
        return _list(schema)
    if kind == "object":
        return _mapping(schema)
    return {"string": "text", "null": "`null`"}.get(kind, kind) + _range(schema)


def _list(schema: Schema) -> str:
    if "prefixItems" in schema:
        return f"list of {len(schema['prefixItems'])}: {_either(schema['prefixItems'])}"
    return f"list of {_type(schema.get('items', {}))}"


def _mapping(schema: Schema) -> str:
    values = [schema.get("additionalProperties"), *schema.get("patternProperties", {}).values()]
    if known := [each for each in values if isinstance(each, Mapping)]:
        return f"mapping to {_either(known)}"
    return "one name with its options" if schema.get("maxProperties") == 1 else "mapping"


def _either(schemas: Iterable[Schema]) -> str:
    return " or ".join(dict.fromkeys(_type(each) for each in schemas))


def _range(schema: Schema) -> str:
    """Bounds as an interval, or as the one side that there is."""
    low, high = (next((schema[key] for key in keys if key in schema), None) for keys in _BOUNDS)
    if low is not None and high is not None:
        opening, closing = "(" if "exclusiveMinimum" in schema else "[", ")" if "exclusiveMaximum" in schema else "]"
        return f" in {opening}{low}, {high}{closing}"
    if low is not None:
        return f" {'>' if 'exclusiveMinimum' in schema else '≥'} {low}"
    return "" if high is None else f" {'<' if 'exclusiveMaximum' in schema else '≤'} {high}"

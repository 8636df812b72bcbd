"""The recipe's JSON Schema, which editors complete and check recipes by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engines import plugins
from exporter.recipe.schema import Recipe


def schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a recipe, with the options of every installed backend and pass.

    Raises:
        MissingDependency: a plugin's library is absent, so its options are not known here.

    """
    found = Recipe.model_json_schema()
    found = {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}
    found["properties"]["targets"]["items"] = _one_of("backends", found["$defs"])
    found["properties"]["targets"]["default"] = ["onnxruntime"]
    found["$defs"]["Component"]["properties"]["passes"]["items"] = _one_of("passes", found["$defs"])
    target = found["$defs"]["Component"]["properties"]["target"]
    target["anyOf"] = [*found["properties"]["targets"]["items"]["anyOf"], {"type": "null"}]
    return found


def _one_of(kind: str, definitions: dict[str, Any]) -> Mapping[str, Any]:
    """A bare name, or a mapping of one name to that plugin's options."""
    names, options = plugins.names(kind), {}
    for name in names:
        own = plugins.load(kind, name).model_json_schema(ref_template=f"#/$defs/{kind}.{name}.{{model}}")
        definitions |= {f"{kind}.{name}.{inner}": definition for inner, definition in own.pop("$defs", {}).items()}
        definitions[f"{kind}.{name}"] = own
        options[name] = {"anyOf": [{"$ref": f"#/$defs/{kind}.{name}"}, {"type": "null"}]}
    one = {"type": "object", "properties": options, "additionalProperties": False, "minProperties": 1, "maxProperties": 1}
    return {"anyOf": [{"enum": names}, one]}

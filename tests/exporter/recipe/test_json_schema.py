"""The schema that editors use is the code's own: every plugin's options, each reference to something that is there."""

import json
from pathlib import Path

import pytest

from engines import plugins
from exporter.recipe.json_schema import schema
from exporter.recipe.schema import Recipe

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def found():
    pytest.importorskip("onnxruntime")
    return schema()


def test_the_schema_file_is_fresh_and_knows_the_backends(found):
    assert set(found["properties"]["targets"]["items"]["anyOf"][1]["properties"]) == set(plugins.names("backends"))
    assert "threads" in found["$defs"]["backends.onnxruntime"]["properties"]
    stale = "recipes/recipe.schema.json is stale: t2iexport list --schema > recipes/recipe.schema.json"
    assert json.loads((ROOT / "recipes/recipe.schema.json").read_text()) == found, stale


def references(value):
    """Every `$ref` in it, and every place that a discriminator names."""
    if isinstance(value, dict):
        yield from [value["$ref"]] if "$ref" in value else []
        yield from value.get("discriminator", {}).get("mapping", {}).values() if "discriminator" in value else []
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_every_reference_leads_somewhere(found):
    names = {name.removeprefix("#/$defs/") for name in references(found)}
    assert names <= found["$defs"].keys()
    nested = {name for name in names if name.count(".") == 2}
    assert "passes.prune.Blocks" in nested or nested, "models inside a plugin's options are told apart by its name"
    assert all(name.rpartition(".")[0] in found["$defs"] for name in nested)
    assert not [key for each in found["$defs"].values() for key in each if key == "$defs"]


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("backends", ("properties", "targets", "items")),
        ("passes", ("$defs", "Component", "properties", "passes", "items")),
        ("backends", ("$defs", "Component", "properties", "target")),
    ],
)
def test_a_plugin_is_a_bare_name_or_one_name_with_its_options(found, kind, place):
    for key in place:
        found = found[key]
    bare, mapping, *nothing = found["anyOf"]
    assert bare == {"enum": plugins.names(kind)}
    assert mapping["properties"].keys() == set(plugins.names(kind))
    for name, options in mapping["properties"].items():
        assert options == {"anyOf": [{"$ref": f"#/$defs/{kind}.{name}"}, {"type": "null"}]}
    assert (mapping["minProperties"], mapping["maxProperties"], mapping["additionalProperties"]) == (1, 1, False)
    assert nothing == ([{"type": "null"}] if place[-1] == "target" else [])


def test_options_are_closed_and_have_the_code_s_defaults(found):
    for kind in ("backends", "passes"):
        for name in plugins.names(kind):
            options = found["$defs"][f"{kind}.{name}"]
            assert options["additionalProperties"] is False
            fields = plugins.load(kind, name).model_fields
            assert options["properties"].keys() == fields.keys()
            assert set(options.get("required", ())) == {key for key, field in fields.items() if field.is_required()}


def test_the_whole_is_that_of_a_recipe(found):
    assert found["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert next(iter(found)) == "$schema"
    assert found["properties"].keys() == Recipe.model_json_schema()["properties"].keys()
    assert found["properties"]["targets"]["default"] == ["onnxruntime"]


def test_what_is_made_for_one_is_not_kept_for_the_next(found):
    """Nothing of it is shared with pydantic's own: a second schema is the same as the first, though the first was changed."""
    first = schema()
    first["$defs"].clear()
    first["properties"]["targets"]["items"]["anyOf"].clear()
    assert schema() == found

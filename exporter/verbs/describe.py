"""Verbs that read and say what is there: a bundle, a recipe, what a recipe may name."""

from __future__ import annotations

import json
from pathlib import Path

import click

from exporter.verbs.options import PATH

_KINDS = ["families", "passes", "formats", "backends", "samplers", "recipes", "architectures", "pipelines"]


@click.command("inspect")
@click.argument("path", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--as-recipe", is_flag=True, help="Print a bundle's recipe, with the layers written out that were kept.")
def inspect_command(path: Path, *, as_json: bool, as_recipe: bool) -> None:
    """Describe a bundle, or a recipe before anything is built."""
    from exporter.recipe import shipped
    from exporter.report import console, describe

    if as_recipe:
        from exporter.stages.freeze import written

        click.echo(written(path), nl=False)
        return
    named = shipped.is_bare(path) and not path.exists()
    if path.is_dir() or not (named or path.suffix in shipped.SUFFIXES):
        console.show(describe.bundle(path), as_json=as_json)
        return
    from exporter.recipe.schema import Recipe
    from exporter.stages.store import Store
    from exporter.stages.vendors import located

    chosen = Recipe.load(path)
    with located(chosen):
        console.show(describe.recipe(chosen, Store()), as_json=as_json)


@click.command("list")
@click.argument("kind", required=False, type=click.Choice(_KINDS))
@click.option("--schema", is_flag=True, help="Print the JSON Schema of a recipe, for editors.")
def list_command(kind: str | None, *, schema: bool) -> None:
    """List what a recipe may name.

    `list samplers` compiles every scheduler, and measures its order.
    """
    from exporter.report import console, describe

    if schema:
        from exporter.recipe.json_schema import schema as recipe_schema

        click.echo(json.dumps(recipe_schema(), indent=2))
        return
    if kind == "samplers":
        console.show(describe.samplers())
        return
    kinds = [kind] if kind else describe.LISTS
    console.show({each: describe.listing(each) or ["none"] for each in kinds})

"""Options that several verbs take."""

from __future__ import annotations

from pathlib import Path

import click

PATH = click.Path(path_type=Path)
ASSIGNMENTS = click.option(
    "--set", "assignments", multiple=True, metavar="PATH=VALUE", help="Change the recipe: sampler.steps=[8]."
)

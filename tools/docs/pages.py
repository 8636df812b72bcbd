"""Which block is made by what, and on which pages blocks may stand."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path

from engines.serve.options import ServeOptions
from exporter.quantization import formats
from exporter.recipe import json_schema
from exporter.report import describe, pipelines
from tools.docs import errors, samplers, schemas
from tools.docs.blocks import filled, table

ROOT = Path(__file__).parents[2]


def _formats() -> str:
    rows = []
    for name in formats.offered():
        form = formats.FORMATS[name]
        rows.append([f"`{name}`", form.about, form.weights, form.conv or "float", form.product or "float", form.gate])
    inputs = ["inputs of convolutions", "inputs of matrix products"]
    return table(["format", "what", "weights", *inputs, "must win, unless told otherwise"], rows)


def _format_targets() -> str:
    rows = [[f"`{row['format']}`", row["target"], row["answer"]] for row in formats.rows()]
    return table(["format", "target", "answer"], rows)


def _listed(kind: str) -> str:
    rows = describe.listing(kind)
    return table(["name", "what"], ([f"`{Path(row['name']).name}`", row["what"]] for row in rows))


def _coverage() -> str:
    known = pipelines.read()
    found = []
    for task, rows in known["rows"].items():
        lines = [[f"`{name}`", row["pipeline"], pipelines.state(row)] for name, row in rows.items()]
        good = sum(row["state"] in ("works", "tested") for row in rows.values())
        listed = f" names in diffusers {known['diffusers']}" if " " not in task else ""
        head = f"\n## {task}: {good} of {len(rows)}{listed}\n\n"
        found.append(head + table(["name", "pipeline", "state"], lines))
    return "".join(found) + "\n"


def _schema() -> str:
    return json.dumps(json_schema.schema(), indent=2) + "\n"


#: Name of a block → what makes its text.
BLOCKS: Mapping[str, Callable[[], str]] = {
    "sampler-conditions": samplers.conditions,
    "samplers": samplers.compiled,
    "refused-samplers": samplers.refused,
    "sampler-aliases": samplers.aliased,
    "sampler-spacings": samplers.spaced,
    "pairings": samplers.kinds,
    "pairing-examples": samplers.examples,
    "formats": _formats,
    "format-targets": _format_targets,
    "bundle-formats": schemas.bundle_formats,
    "manifest-fields": schemas.manifest_fields,
    "recipe-fields": schemas.recipe_fields,
    "sweep-fields": schemas.sweep_fields,
    "score-fields": schemas.score_fields,
    "backend-options": functools.partial(schemas.options, "backends"),
    "pass-options": functools.partial(schemas.options, "passes"),
    "exit-statuses": errors.statuses,
    "coverage": _coverage,
    "serve-options": lambda: table(["key", "default", "what it is"], ([f"`{row[0]}`", *row[1:]] for row in ServeOptions.rows())),
    **{kind: functools.partial(_listed, kind) for kind in ("recipes", "architectures", "families", "backends", "passes")},
}
#: File that is made whole → what makes it.
FILES: Mapping[str, Callable[[], str]] = {"recipes/recipe.schema.json": _schema}


def pages() -> list[Path]:
    """Every page that may have blocks."""
    return [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md"))]


def made() -> dict[Path, str]:
    """Every page and file with what the code says now."""
    texts = {page: filled(page.read_text(encoding="utf-8"), BLOCKS) for page in pages()}
    return texts | {ROOT / name: make() for name, make in FILES.items()}

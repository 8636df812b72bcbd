"""`python -m tools.coverage [NAME …]`: try micro models of diffusers' pipelines, and keep a row of each.

Every name of diffusers' own lists has a row in exporter/report/pipelines.json; docs/coverage.md and `t2iexport list pipelines`
show them. Each trial is a process of its own with a time limit, and its row is written at once: what was done stays done.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import click
import diffusers
from diffusers.pipelines import auto_pipeline as library

from exporter.report import pipelines
from tools.coverage.models import MADE

#: Whose lists are typed by every name in them.
auto_pipeline: Any = library
#: Task → diffusers' list of its pipelines.
TASKS: Mapping[str, Mapping[str, type]] = {
    "text-to-image": auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING,
    "image-to-image": auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING,
    "inpainting": auto_pipeline.AUTO_INPAINT_PIPELINES_MAPPING,
}
#: How micro models of the other lists are called: by the name that they have there, and this.
_TAILS = {"inpainting": "-inpaint", "image-to-image": "-pictured"}
#: Of the lists that are not tried here: whose own tests hold them to diffusers.
_TESTED = {"stable-diffusion": "sd", "stable-diffusion-xl": "sdxl", "lcm": "sd"}


def place(model: str) -> tuple[str, str] | None:
    """Task and name of a micro model's row; None of a variant of another."""
    if model in TASKS["text-to-image"]:
        return "text-to-image", model
    named = ((task, model.removesuffix(tail)) for task, tail in _TAILS.items() if model.endswith(tail))
    return next(((task, name) for task, name in named if name in TASKS[task]), None)


def listed(known: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Every name of the lists, with what is known of it, and what is known of pipelines beside them."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for task, kinds in TASKS.items():
        rows = {name: row for name, row in known.get(task, {}).items() if row["state"] not in ("not tried", "tested")}
        found[task] = {name: {**rows.get(name, _untried(task, name)), "pipeline": kind.__name__} for name, kind in kinds.items()}
    for task, rows in known.items():
        found.setdefault(task, {name: dict(row) for name, row in rows.items()})
    return found


def _untried(task: str, name: str) -> dict[str, str]:
    if task == "text-to-image":
        return {"state": "not tried", "why": "its micro model waits" if name in MADE else "no micro model of it yet"}
    if family := _TESTED.get(name):
        return {"state": "tested", "why": f"family {family} with `vae_encoder: {{}}` among its components"}
    return {"state": "not tried", "why": "its micro model was not tried from a picture yet"}


def tried(name: str, seconds: int, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Try one name in a process of its own; what it dies of, or that it takes too long, is its row.

    Of a row that is `known` to work the figure in fp16 alone is measured.
    """
    row = [json.dumps({key: value for key, value in known.items() if key != "pipeline"})] if known else []
    command = [sys.executable, "-m", f"tools.coverage.{'halves' if known else 'trial'}", name, *row]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return {"state": "not built", "why": f"it took more than {seconds} s"}
    if done.returncode:
        return {"state": "failed", "why": (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1][:300]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def _chosen(names: tuple[str, ...], rows: Mapping[str, Mapping[str, Any]], *, again: bool) -> Iterator[str]:
    for name in names or MADE:
        if names or (name in rows and (again or rows[name]["state"] != "works")):
            yield name


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(sorted(MADE)))
@click.option("--again", is_flag=True, help="Those too whose row says that they work.")
@click.option("--halves", is_flag=True, help="Of rows that work, the figures in fp16 that they lack, and nothing else.")
@click.option("--seconds", default=900, show_default=True, help="Most that one trial may take.")
def main(names: tuple[str, ...], *, again: bool, halves: bool, seconds: int) -> None:
    """Try the names, or all whose rows do not say that they work, and keep the rows."""
    rows = keep({})
    lacking = [name for name, row in rows.items() if row["state"] == "works" and "fp16" not in row]
    for name in [each for each in lacking if each in names or not names] if halves else list(_chosen(names, rows, again=again)):
        found = tried(name, seconds, rows[name] if halves else None)
        if halves and found["state"] != "works":  # it took too long, or died: what was known of it stays
            click.echo(f"{name}: {found['why']}", err=True)
            continue
        keep({name: found})
        click.echo(f"{name}: {pipelines.state(found)}")


def keep(found: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
    """Put rows of micro models to those that are kept, which another process may have added to; return those of micro models."""
    rows = listed(pipelines.read()["rows"] if pipelines.FILE.exists() else {})
    placed = {model: at for model in MADE if (at := place(model))}
    for model, row in found.items():
        if model in placed:
            task, name = placed[model]
            rows[task][name] = {"pipeline": rows[task][name]["pipeline"], **row}
    content = {"diffusers": diffusers.__version__, "rows": rows}
    pipelines.FILE.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return {model: rows[task][name] for model, (task, name) in placed.items()}


if __name__ == "__main__":
    main()

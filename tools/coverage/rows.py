"""Rows of exporter/report/pipelines.json: which there are, which trial measures which, and how a measured one is kept."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import diffusers
from diffusers.pipelines import auto_pipeline as library

from exporter.report import pipelines
from tools.coverage.models import BESIDE, MADE

#: Whose lists are typed by every name in them.
auto_pipeline: Any = library
#: Task → diffusers' list of its pipelines.
TASKS: Mapping[str, Mapping[str, type]] = {
    "text-to-image": auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING,
    "image-to-image": auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING,
    "inpainting": auto_pipeline.AUTO_INPAINT_PIPELINES_MAPPING,
}
#: What stands in none of those lists, under a name of our own.
UNLISTED = "beside the lists"
#: How micro models of the other lists are called: by the name that they have there, and this.
_TAILS = {"inpainting": "-inpaint", "image-to-image": "-pictured"}
#: Of the lists that are not tried here: whose own tests hold them to diffusers.
_TESTED = {"stable-diffusion": "sd", "stable-diffusion-xl": "sdxl", "lcm": "sd"}
#: Task → name → row.
Rows = dict[str, dict[str, dict[str, Any]]]


@dataclass(frozen=True)
class Trial:
    """One process, `python -m tools.coverage.MODULE NAME`: it prints a row of its micro model, or rows by task."""

    module: str
    name: str
    tasks: tuple[str, ...]

    @property
    def places(self) -> dict[str, str]:
        """Task → the name that its row has there."""
        return {task: self.name.removesuffix(_TAILS.get(task, "")) for task in self.tasks}

    def rows(self, found: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        """Task → row, of what was found: rows by task, or one that is every task's."""
        return {task: found if "state" in found else found[task] for task in self.tasks}


def trials() -> list[Trial]:
    """Every trial: of the lists, of those that start from a picture or fill a mask in it, and of what stands beside the lists."""
    found = [Trial("trial", model, (at[0],)) for model in MADE if (at := place(model))]
    found += [Trial("edits", model, tasks) for model in MADE if (tasks := edited(model))]
    return found + [Trial("beside", model, (UNLISTED,)) for model in BESIDE]


def place(model: str) -> tuple[str, str] | None:
    """Task and name of a micro model's row; None of a variant of another."""
    if model in TASKS["text-to-image"]:
        return "text-to-image", model
    named = ((task, model.removesuffix(tail)) for task, tail in _TAILS.items() if model.endswith(tail))
    return next(((task, name) for task, name in named if name in TASKS[task]), None)


def edited(model: str) -> tuple[str, ...]:
    """Tasks whose pipelines begin with a picture, run the networks of this micro model from text, and have none of their own."""
    return tuple(task for task, tail in _TAILS.items() if f"{model}{tail}" not in MADE and _begins(TASKS[task].get(model)))


def _begins(kind: type | None) -> bool:
    """Whether a pipeline begins with its picture, and has a network of no further channels for it."""
    return kind is not None and "strength" in inspect.signature(kind.__call__).parameters


def listed(known: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Rows:
    """Every name of the lists, with what is known of it, and what is known of pipelines beside them."""
    found: Rows = {}
    for task, kinds in TASKS.items():
        rows = {name: row for name, row in known.get(task, {}).items() if row["state"] not in ("not tried", "tested")}
        found[task] = {name: {**rows.get(name, _untried(task, name)), "pipeline": kind.__name__} for name, kind in kinds.items()}
    beside = known.get(UNLISTED, {})
    return {**found, UNLISTED: {name: dict(beside[name]) for name in BESIDE if name in beside}}


def _untried(task: str, name: str) -> dict[str, str]:
    if task == "text-to-image":
        return {"state": "not tried", "why": "its micro model waits" if name in MADE else "no micro model of it yet"}
    if family := _TESTED.get(name):
        return {"state": "tested", "why": f"family {family} with `vae_encoder: {{}}` among its components"}
    return {"state": "not tried", "why": "its micro model was not tried from a picture yet"}


def read() -> Rows:
    """The rows that are kept, and those of names that were never tried."""
    return listed(pipelines.read()["rows"] if pipelines.FILE.exists() else {})


def keep(trial: Trial, found: Mapping[str, Any]) -> None:
    """Put what a trial found to the rows that are kept, which another process may have added to.

    Each says on which day it was `measured`, in fp32 and in fp16. Where it works and nothing was measured in fp16, a figure that
    was known stays.
    """
    rows, today = read(), date.today().isoformat()  # noqa: DTZ011 - the reader's day
    for task, row in trial.rows(found).items():
        name = trial.places[task]
        known = rows[task].get(name) or {"pipeline": type(BESIDE[name]()).__name__}
        days = {"fp32": today}
        made = {"pipeline": known["pipeline"], **row}
        if "fp16" in row:
            days["fp16"] = today
        elif row["state"] == "works" and "fp16" in known:
            made["fp16"] = known["fp16"]
            days |= {"fp16": day} if (day := known.get("measured", {}).get("fp16")) else {}
        rows[task][name] = {**made, "measured": days}
    content = {"diffusers": diffusers.__version__, "rows": listed(rows)}
    pipelines.FILE.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

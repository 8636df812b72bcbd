"""What is known of diffusers' own lists of pipelines: a row for each name, as `python -m tools.coverage` measured it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

#: Rows by task, and the version of diffusers whose names and pictures they are.
FILE = Path(__file__).parent / "pipelines.json"


def read() -> Mapping[str, Any]:
    """`diffusers`, a version, and `rows`: task → name → pipeline, state, and what that state has to tell."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def rows() -> list[dict[str, str]]:
    """Name, task and pipeline as diffusers has them, and the state in words."""
    return list(_rows(read()["rows"]))


def _rows(known: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Iterator[dict[str, str]]:
    for task, named in known.items():
        for name, row in named.items():
            yield {"name": name, "task": task, "pipeline": row["pipeline"], "what": state(row)}


def state(row: Mapping[str, Any]) -> str:
    """One row's state in words."""
    if "psnr" in row:
        told = "works" if row["state"] == "works" else "differs from diffusers"
        half = f", in fp16 {row['fp16']} dB" if isinstance(row.get("fp16"), float) else ""
        half = f", not in fp16: {row['fp16']}" if isinstance(row.get("fp16"), str) else half
        return f"{told}: {row['psnr']} dB{half}, guidance {row['guidance']}" + (f", {row['only']}" if "only" in row else "")
    return f"{row['state']}: {row['why']}"

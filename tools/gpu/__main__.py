"""One job of the smoke test in a process of its own: `python -m tools.gpu JOB '{"json": "arguments"}'`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PATHS = ("graphs", "out", "work")


def main() -> None:
    """Run the job."""
    job, text = sys.argv[1:]
    given: dict[str, Any] = json.loads(text)
    for name in PATHS:
        if name in given:
            given[name] = Path(given[name])
    for name, value in given.items():
        given[name] = tuple(value) if isinstance(value, list) else value
    if job == "model":
        from tools.gpu.model import Measurement, Settings  # noqa: PLC0415 - a job loads what it needs

        Measurement(Settings(**given)).run()
    elif job == "graphs":
        from tools.gpu.graphs import make  # noqa: PLC0415 - a job loads what it needs

        make(given["model"], given["variant"], given["graphs"], size=given["size"], batch=given["batch"])
    elif job == "demo":
        from tools.gpu.demo import run as demo  # noqa: PLC0415 - a job loads what it needs

        demo(**given)
    elif job == "distill":
        from tools.gpu.training import run as distill  # noqa: PLC0415 - a job loads what it needs

        distill(**given)
    else:
        raise SystemExit(f"no job {job!r}")


if __name__ == "__main__":
    main()

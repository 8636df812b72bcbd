"""`python -m tools.coverage.halves NAME ROW`: measure what a row, given as JSON, lacks in fp16, and print the row with it.

Nothing else of the row is measured again: the micro model is built with every part in fp16 alone, as the row says that it builds.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tools.coverage import trial
from tools.coverage.models import MADE


def row(name: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a name, which is `known` to work, with its figure in fp16, or why there is none."""
    side, wide = trial.SIDES.get(name, (32, 48))
    rungs = {trial.limits(name, rung[0], (), "").get("only", ""): rung for rung in trial.ladder(side, wide)}
    _, bundles, batch = rungs[known.get("only", "")]
    with tempfile.TemporaryDirectory() as folder:
        source: Any = MADE[name]()
        source.save_pretrained(f"{folder}/model")
        of = partial(trial.built, name, Path(folder), side, batch=batch, more=trial.stated(name))
        compare = partial(trial.compared, source, name, height=side)
        return {**known, "fp16": trial.halved(bundles, of, compare, folder)}


def main() -> None:
    """Print the row."""
    trial.alone()
    print(json.dumps(row(sys.argv[1], json.loads(sys.argv[2])), ensure_ascii=False))


if __name__ == "__main__":
    main()

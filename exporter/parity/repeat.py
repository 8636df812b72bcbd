"""A fault as files: the smallest graph that shows it, what it is fed with and what it answers, as polygraphy runs them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from polygraphy.comparator import RunResults
from polygraphy.json import save_json
from polygraphy.logger import G_LOGGER

from exporter.parity.cut import Subgraph

GRAPH, INPUTS, RIGHT, WRONG = "smallest.onnx", "inputs.json", "right.json", "wrong.json"


def write(
    folder: Path, part: Subgraph, want: Mapping[str, np.ndarray], got: Mapping[str, np.ndarray], floor: float, *, engine: bool
) -> str:
    """Write a fault into a folder; return the command that repeats it there.

    ONNX Runtime then runs the graph: against the source's values where the graph is wrong, and where an engine is, against what
    that answered.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in (GRAPH, f"{GRAPH}.data"):
        (folder / old).unlink(missing_ok=True)
    part.signature({part.ports[name]: array.shape for name, array in want.items()})  # without shapes the file is not valid ONNX
    part.save(folder / GRAPH)
    with G_LOGGER.verbosity(G_LOGGER.ERROR):
        save_json([{name: np.ascontiguousarray(array) for name, array in part.feeds.items()}], str(folder / INPUTS))
        for file, name, arrays in ((RIGHT, "right", want), (WRONG, "wrong", got)):
            results = RunResults()
            results.add([{part.ports[each]: np.ascontiguousarray(array) for each, array in arrays.items()}], runner_name=name)
            results.save(str(folder / file))  # pyright: ignore[reportAttributeAccessIssue] - a decorator of polygraphy adds it
    place = {name: shlex.quote(str(folder / name)) for name in (GRAPH, INPUTS, RIGHT, WRONG)}
    level = " --graph-optimization-level ORT_DISABLE_ALL"
    return (
        f"polygraphy run {place[GRAPH]} --onnxrt{level} --load-inputs {place[INPUTS]} "
        f"--load-outputs {place[WRONG if engine else RIGHT]} --compare psnr --psnr-threshold {floor:g}"
    )

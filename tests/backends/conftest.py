"""The graph that every backend must build, on disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.backends.small_graph import write_graph


@pytest.fixture(scope="session")
def graphs(tmp_path_factory):
    """opset → path of the graph, shared by all tests: copy it before damaging it."""
    made: dict[int, Path] = {}

    def get(opset):
        if opset not in made:
            made[opset] = write_graph(tmp_path_factory.mktemp(f"opset{opset}") / "part.onnx", opset)
        return made[opset]

    return get


@pytest.fixture
def own_graph(graphs, tmp_path):
    """Like `graphs`, but a copy that the test may damage."""

    def get(opset):
        source = graphs(opset)
        (tmp_path / "onnx").mkdir()
        return Path(shutil.copytree(source.parent, tmp_path / "onnx", dirs_exist_ok=True)) / source.name

    return get

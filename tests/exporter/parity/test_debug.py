"""Planted faults are found by name, whether the graph has them or an engine."""

import functools
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from engines import plugins
from engines.errors import UnsupportedError
from exporter.parity.debug import debug
from exporter.report import fault as printed
from tests.exporter.parity import planted


def no_source():
    raise AssertionError("an engine is held to its graph, without torch")


@pytest.fixture
def faulty(monkeypatch):
    """Make `faulty` a backend that plants a fault."""
    load = plugins.load

    def plant(fault, hides=None):
        backend = planted.Faulty(fault, hides)
        monkeypatch.setattr(plugins, "load", lambda kind, name: backend if name == "faulty" else load(kind, name))

    return plant


@pytest.mark.parametrize("name", planted.FAULTS)
def test_a_fault_of_the_graph_is_found_in_its_layer(tmp_path, name):
    module, plant = planted.FAULTS[name]
    model = planted.graph()
    plant(model, module)
    planted.bundle(tmp_path / "bundle", model)
    found = debug(tmp_path / "bundle", "unet", None, planted.steps, tmp_path / "out").fault
    assert found.line.stage == "passes → onnx"
    assert found.module == module
    assert found.alone < found.floor
    assert all(module in str(node.metadata_props.get(planted.SCOPES, module)) for node in found.nodes)


@pytest.mark.parametrize("name", planted.FAULTS)
def test_a_fault_of_an_engine_is_found_in_its_layer(tmp_path, faulty, name):
    module, plant = planted.FAULTS[name]
    faulty(functools.partial(plant, module=module))
    planted.bundle(tmp_path / "bundle", planted.graph(), backend="faulty")
    found = debug(tmp_path / "bundle", "unet", "faulty", no_source, tmp_path / "out").fault
    assert found.line.stage == "onnx → engine"
    assert found.module == module
    assert len(found.nodes) == 1
    assert found.alone < found.floor

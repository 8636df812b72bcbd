"""The registry is the folder, and entry points beside it."""

import importlib.metadata
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

import engines
from engines import plugins
from engines.errors import UnsupportedError
from engines.samplers.table import Table


@pytest.fixture
def third(monkeypatch):
    """Somebody else's plugins: one of its own name, one of ours."""
    points = [EntryPoint(name, "engines.samplers.ode:Ode", "t2iexport.samplers") for name in ("theirs", "table")]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda: EntryPoints(points))
    plugins._read.cache_clear()
    yield
    plugins._read.cache_clear()


def test_names_are_those_of_the_files():
    own = {file.stem for file in (Path(engines.__file__).parent / "samplers").iterdir() if file.suffix == ".py"}
    assert plugins.names("samplers") == sorted(name for name in own if not name.startswith("_"))
    assert "table" in plugins.names("samplers")


def test_a_plugin_is_its_file_s_one_public_name():
    assert plugins.load("samplers", "table") is Table


@pytest.mark.usefixtures("third")
def test_entry_points_stand_beside_the_files_and_never_before_them():
    assert set(plugins.names("samplers")) >= {"theirs", "table"}
    assert plugins.names("samplers").count("table") == 1
    assert "theirs" not in plugins.names("backends")
    assert plugins.load("samplers", "theirs").__name__ == "Ode"
    assert plugins.load("samplers", "table") is Table


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("tabel", r"no samplers plugin named 'tabel'; did you mean 'table'\?"),
        ("xyz", r"no samplers plugin named 'xyz'; there are: .*table"),
        ("__init__", "no samplers plugin named '__init__'"),
        ("", "no samplers plugin named ''"),
    ],
)
def test_what_is_no_plugin_is_told(name, told):
    with pytest.raises(UnsupportedError, match=told):
        plugins.load("samplers", name)


def test_listing_imports_no_plugin():
    before = set(sys.modules)
    plugins.names("backends")
    assert not {name for name in set(sys.modules) - before if name.startswith("engines.backends.")}


def test_a_near_miss_is_named_and_else_all_there_is():
    assert plugins.did_you_mean("heigth", ["height", "width"]) == "; did you mean 'height'?"
    assert plugins.did_you_mean("zzz", ["height", "width"]) == "; there are: height, width"
    assert plugins.did_you_mean("zzz", []) == "; there are none"

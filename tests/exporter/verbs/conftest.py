"""A command line to call, and what to call it with."""

import pytest

from exporter import cli
from tests.engines import small
from tests.exporter.verbs.samples import GOOD, RECIPE


@pytest.fixture
def run(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def call(*arguments):
        with pytest.raises(SystemExit) as caught:
            cli.main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return caught.value.code, out, err

    return call


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def bundle(tmp_path):
    return small.make(tmp_path / "small", verdicts=(GOOD,), notes=("a note",))

"""The command that measures rows: which it tries, and what becomes of a trial that dies."""

import subprocess
from typing import NamedTuple

import click
import pytest
from click.testing import CliRunner

from exporter.report import pipelines
from tools.coverage import __main__ as coverage
from tools.coverage import rows

TRIAL = rows.Trial("trial", "flux", ("text-to-image",))


class Done(NamedTuple):
    """What a process leaves."""

    returncode: int
    stdout: str = ""
    stderr: str = ""


@pytest.mark.parametrize(
    ("done", "row"),
    [
        (Done(0, 'a word of a library\n{"state": "refused", "why": "no"}\n'), {"state": "refused", "why": "no"}),
        (Done(1, "", "Traceback\nValueError: odd\n"), {"state": "failed", "why": "ValueError: odd"}),
        (Done(-9), {"state": "failed", "why": "exit status -9"}),
    ],
)
def test_a_trial_that_dies_is_a_row(monkeypatch, done, row):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    assert coverage.tried(TRIAL, 1, 1) == row


def test_a_trial_that_takes_too_long_is_a_row(monkeypatch):
    def run(*_, timeout, **__):
        raise subprocess.TimeoutExpired("python", timeout)

    monkeypatch.setattr(subprocess, "run", run)
    assert coverage.tried(TRIAL, 7, 1) == {"state": "not built", "why": "it took more than 7 s"}


def test_rows_are_kept_one_by_one_and_those_that_work_are_not_tried_again(monkeypatch, tmp_path):
    tried = []

    def trial(each, _seconds, _threads, *options):
        tried.append(" ".join((each.name, *options)))
        if each.name == "flux":
            raise click.Abort
        return {"state": "works", "psnr": 99.0, "guidance": "none"}

    def run(*arguments):
        tried.clear()
        return CliRunner().invoke(coverage.main, arguments)

    own = rows.trials()
    monkeypatch.setattr(pipelines, "FILE", tmp_path / "rows.json")
    monkeypatch.setattr(rows, "trials", lambda: [each for each in own if each.module == "trial" and each.name in names])
    monkeypatch.setattr(coverage, "tried", trial)
    names = ("sana", "flux")
    assert run("sana", "flux").exit_code == 1  # interrupted
    assert pipelines.read()["rows"]["text-to-image"]["sana"]["psnr"] == 99.0
    names = ("sana", "auraflow")
    done = run()
    assert (done.exit_code, tried) == (0, ["auraflow"])
    assert "[1 of 1, 0 min] auraflow, text-to-image: works: 99.0 dB" in done.output
    assert run("--again", "--jobs", "2").exit_code == 0
    assert sorted(tried) == ["auraflow", "sana"]
    assert run("--again", "--fp32").exit_code == 0
    assert sorted(tried) == ["auraflow --fp32", "sana --fp32"]
    assert run("--before", "2020-01-01").exit_code == 0
    assert tried == []
    assert run("--before", "2999-01-01").exit_code == 0
    assert sorted(tried) == ["auraflow", "sana"]

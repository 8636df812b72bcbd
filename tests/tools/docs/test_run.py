"""Every fenced command of the pages is run by `python -m tools.docs.run`, or it says why not."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from tools.docs import run as docs_run

ROOT = Path(__file__).parents[2]
COMMANDS = [command for page in docs_run.PAGES for command in docs_run.commands(page)]


def test_no_page_with_commands_is_left_out():
    pages = {path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]}
    assert {page for page in pages if list(docs_run.commands(page))} <= set(docs_run.PAGES)


@pytest.mark.parametrize("mark", docs_run.NEVER | docs_run.LATER)
def test_every_reason_is_some_commands(mark):
    assert any(re.search(mark, command.line) for command in COMMANDS)


def test_readme_is_run_but_for_what_it_installs():
    skipped = [command.line for command in COMMANDS if command.page == "README.md" and command.reason]
    assert skipped
    assert all(line.startswith("pip install") for line in skipped)


def test_what_is_asked_for_is_run_but_for_what_cannot():
    skipped = [command for page in docs_run.PAGES for command in docs_run.commands(page, everything=True) if command.reason]
    assert {command.reason for command in skipped} <= set(docs_run.NEVER.values())
    assert len(skipped) < sum(bool(command.reason) for command in COMMANDS)


def test_a_command_that_fails_is_told(monkeypatch):
    lines = [docs_run.Command("README.md", f"python -c 'raise SystemExit({status})'") for status in (0, 3)]
    monkeypatch.setattr(docs_run, "commands", lambda page, **_: lines if page == "README.md" else [])
    done = CliRunner().invoke(docs_run.main)
    assert done.exit_code == 1
    assert [line.split()[0] for line in done.output.splitlines() if "README" in line] == ["ok", "FAILED"]
    assert done.output.splitlines()[-1] == "2 run, 0 not, 1 failed"

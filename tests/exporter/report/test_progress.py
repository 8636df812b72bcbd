"""What a build prints while it runs: one line a stage, whoever made it, and on a terminal what is at work."""

import io
import math
from types import SimpleNamespace

import pytest
from rich.console import Console

from exporter.report import progress

SECOND = "the second process"


def stage(verb, subject):
    return SimpleNamespace(verb=verb, subject=subject, name=(verb, subject), resumes=False)


RECORD, EXPORT = stage("record", "source"), stage("export", "unet, opset 20")


@pytest.fixture
def told(monkeypatch):
    """Lines as a pipe gets them, and the text so far."""
    text = io.StringIO()
    monkeypatch.setattr(progress, "console", lambda **_: Console(file=text, width=400))
    lines = progress.StageLines(error=False)
    return lines, lambda: [" ".join(line.split()) for line in text.getvalue().splitlines()]


def test_a_stage_of_the_second_process_has_a_line_of_its_own_once(told):
    lines, text = told
    lines(RECORD)
    lines(EXPORT, why="first build", by=SECOND)
    lines(RECORD, 2.0, why="first build")
    lines(EXPORT)
    lines(EXPORT, 5.0, why="first build", by=SECOND)
    lines(EXPORT, 3.0, why="first build")
    assert text() == ["record source 2.0 s first build", "export unet, opset 20, by the second process 5.0 s first build"]
    assert [(row["stage"], row["seconds"], row["cached"]) for row in lines.rows] == [("record", 2, False), ("export", 5, False)]


@pytest.mark.parametrize("last", ["build", "second"])
def test_whoever_is_heard_first_it_is_the_makers_line(told, last):
    lines, text = told
    lines(EXPORT, by=SECOND)
    lines(EXPORT)
    ends = [lambda: lines(EXPORT, 5.0, by=SECOND), lambda: lines(EXPORT, 3.0, cached=True)]
    for end in ends if last == "build" else reversed(ends):
        end()
    assert text() == ["export unet, opset 20, by the second process 5.0 s"]


@pytest.mark.parametrize("order", ["gave up first", "built first"])
def test_what_the_second_process_gave_up_is_the_builds(told, order):
    lines, text = told
    lines(EXPORT, by=SECOND)
    lines(EXPORT)
    ends = [lambda: lines(EXPORT, math.nan, by=SECOND), lambda: lines(EXPORT, 3.0, why="first build")]
    for end in ends if order == "gave up first" else reversed(ends):
        end()
    assert text() == ["export unet, opset 20 3.0 s first build"]
    assert len(lines.rows) == 1


def test_a_terminal_shows_both_that_are_at_work(monkeypatch):
    text = io.StringIO()
    screen = Console(file=text, width=100, force_terminal=True, legacy_windows=False)
    monkeypatch.setattr(progress, "console", lambda **_: screen)
    lines = progress.StageLines(error=False)
    lines(RECORD)
    lines(EXPORT, by=SECOND)
    plain = Console(file=io.StringIO(), width=100)
    with plain.capture() as shown:
        plain.print(lines._table())
    lines.say("waiting for another build of x")
    lines.close()
    assert lines._live is None
    rows = [line.split() for line in shown.get().splitlines() if "0 s" in line]
    assert [row[1:3] for row in rows] == [["record", "source"], ["export", "unet,"]]
    assert "by the second process" in " ".join(rows[1])
    assert "waiting for another build of x" in text.getvalue()


def test_a_download_has_a_line_if_anything_came(told):
    lines, text = told
    with lines.fetching("owner/here"):
        pass
    with lines.fetching("owner/name") as tell:
        tell(1_000_000, 6_500_000)
        tell(6_500_000, 6_500_000)
    (line,) = text()
    assert line.split()[:2] + line.split()[-2:] == ["fetch", "owner/name", "6.5", "MB"]


def test_a_terminal_shows_how_far_a_download_is(monkeypatch):
    screen = Console(file=io.StringIO(), width=100, force_terminal=True, legacy_windows=False)
    monkeypatch.setattr(progress, "console", lambda **_: screen)
    with progress.stage_lines(error=True) as lines, lines.fetching("owner/name") as tell:
        tell(1_200_000_000, 6_500_000_000)
        plain = Console(file=io.StringIO(), width=100)
        with plain.capture() as shown:
            plain.print(lines._table())
    assert shown.get().split()[:6] == ["fetch", "owner/name", "1,200", "of", "6,500", "MB"]
    assert lines._live is None

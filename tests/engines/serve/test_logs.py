import json
import logging
import sys

import pytest

pytest.importorskip("starlette", reason="the extra [serve] is not installed")

from engines.serve import logs


def line(**given):
    record = logging.LogRecord("a", logging.INFO, "f", 1, "drew %s", ("a star",), given.pop("exc_info", None))
    vars(record).update(given)
    return json.loads(logs.JsonLines().format(record))


def test_a_record_is_a_line_of_json_with_what_was_given():
    told = line(event="request", status=200, odd=object)
    assert (told["message"], told["level"], told["event"], told["status"]) == ("drew a star", "info", "request", 200)
    assert told["time"].endswith("Z")
    assert "lineno" not in told
    assert "\n" not in logs.JsonLines().format(logging.LogRecord("a", logging.INFO, "f", 1, "two\nlines", (), None))


def test_a_traceback_is_in_it():
    try:
        int("broken")
    except ValueError:
        told = line(exc_info=sys.exc_info())
    assert "ValueError: invalid literal" in told["traceback"]


def test_everything_goes_to_stderr(capsys):
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    try:
        logs.to_stderr()
        logging.getLogger("any").info("hello", extra={"event": "x"})
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    assert json.loads(capsys.readouterr().err)["event"] == "x"

"""The command: what it is told, how it starts, and how it stops."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from engines.errors import MissingDependency, UnsupportedError
from engines.serve.command import named, serve
from engines.serve.options import ServeOptions
from tests.engines import small
from tests.engines.serve.live_program import PROGRAM

ROOT = Path(__file__).parents[3]


def test_bundles_are_named_by_their_folders_or_by_who_gives_them(tmp_path):
    odd = tmp_path / "a=b"
    odd.mkdir()
    assert named([tmp_path, Path("x=some/demo"), odd]) == {tmp_path.name: tmp_path, "x": Path("some/demo"), "a=b": odd}
    with pytest.raises(UnsupportedError, match="two bundles are called 'demo'"):
        named([Path("a/demo"), Path("b/demo")])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--set", "queue"], "write KEY=VALUE"),
        (["--set", "queue=1", "--set", "queue=2"], "it is set twice"),
        (["--set", "quee=1"], "did you mean 'queue'"),
    ],
)
def test_what_is_set_wrong_is_told(tmp_path, arguments, text):
    pytest.importorskip("starlette", reason="the extra [serve] is not installed")
    done = CliRunner().invoke(serve, [str(tmp_path), *arguments])
    assert isinstance(done.exception, UnsupportedError)
    assert text in str(done.exception)


def test_a_file_of_keys_must_hold_one(tmp_path):
    pytest.importorskip("starlette", reason="the extra [serve] is not installed")
    (tmp_path / "keys").write_text("\n\n")
    done = CliRunner().invoke(serve, [str(tmp_path), "--keys", str(tmp_path / "keys")])
    assert "holds no key" in str(done.exception)


@pytest.mark.parametrize("library", ["uvicorn", "starlette", "prometheus_client"])
def test_without_the_extra_it_says_what_to_install(tmp_path, library):
    code = f"import sys; sys.modules[{library!r}] = None; sys.argv[1:1] = ['serve']; from engines.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == MissingDependency.exit_code
    assert f"{library} is not installed" in done.stderr
    assert "pip install 't2iexport[serve]'" in done.stderr


def test_help_loads_no_server():
    code = (
        "import sys; from engines.serve.command import serve; from click.testing import CliRunner; "
        "CliRunner().invoke(serve, ['--help']); print(sorted({'starlette', 'uvicorn', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def started(tmp_path):
    """A server in a process of its own, over a small bundle; its lines so far, and its URL."""
    pytest.importorskip("starlette", reason="the extra [serve] is not installed")
    small.make(tmp_path / "small")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "T2IEXPORT_API_KEYS": "secret"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "small"), "--port", "0", "--set", "drain=20"],
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    )
    lines = []
    for line in process.stderr:
        lines.append(json.loads(line))
        if "startup complete" in lines[-1]["message"]:
            break
    yield process, lines
    process.kill()
    process.wait()
    process.stderr.close()


def test_a_signal_in_the_middle_finishes_what_runs_and_the_status_is_zero(started):
    import http.client

    process, lines = started
    url = next(line["url"] for line in lines if line.get("event") == "serving")
    found = []

    def ask():
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
        headers = {"content-type": "application/json", "authorization": "Bearer secret"}
        connection.request("POST", "/v1/images/generations", json.dumps({"prompt": "sea", "n": 2}), headers)
        answer = connection.getresponse()
        found.append((answer.status, json.loads(answer.read())))
        connection.close()

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.5)  # each step takes half a second there
    process.send_signal(signal.SIGTERM)
    thread.join(30)
    assert process.wait(30) == 0
    status, told = found[0]
    assert (status, len(told["data"])) == (200, 2)
    rest = [json.loads(line) for line in process.stderr]
    assert "stopping" in {line.get("event") for line in rest}


def test_the_unit_and_the_compose_file_of_the_page_start_what_there_is():
    page = (ROOT / "docs/serve.md").read_text()
    unit = re.search(r"^ExecStart=\S+/t2iexport serve (.*)$", page, re.MULTILINE)[1]
    compose = re.search(r"exec t2iexport serve (.*)\"$", page, re.MULTILINE)[1]
    for words in (unit, compose):
        params = serve.make_parser(click.Context(serve)).parse_args(shlex.split(words))[0]
        assert params["bundles"]
        assert params["pairs"] == ["queue=32"]
    stops = [int(number) for number in re.findall(r"^(?:TimeoutStopSec=| *stop_grace_period: )(\d+)", page, re.MULTILINE)]
    assert len(stops) == 2
    assert min(stops) > ServeOptions().drain  # else it is killed while it finishes

import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from engines import __main__ as program
from engines.pipeline import Pipeline
from tests.engines import small


@pytest.fixture
def run(bundle, monkeypatch):
    from contextlib import contextmanager

    @contextmanager
    def opened(path, backend):
        assert (path, backend) == (bundle.folder, None)
        yield Pipeline(bundle, small.networks(bundle))

    monkeypatch.setattr(Pipeline, "open", opened)
    return lambda *arguments: CliRunner().invoke(program.generate, [str(bundle.folder), *map(str, arguments)])


def test_a_picture_is_written(run, pipeline, tmp_path):
    out = tmp_path / "p.png"
    done = run("a red square", "-o", out, "--seed", 3, "--steps", 2, "--guidance-scale", 3.5, "--negative-prompt", "sea")
    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == [str(out)]
    with Image.open(out) as read:
        assert {key: read.text[key] for key in ("prompt", "seed", "steps", "guidance_scale", "negative_prompt", "bundle")} == {
            "prompt": "a red square",
            "seed": "3",
            "steps": "2",
            "guidance_scale": "3.5",
            "negative_prompt": "sea",
            "bundle": "small",
        }
        (same,) = pipeline.generate("a red square", seed=3, guidance_scale=3.5, negative_prompt="sea")
        np.testing.assert_array_equal(np.asarray(read), np.asarray(same))


def test_several_prompts(run, tmp_path):
    assert run("a", "red", "-o", tmp_path / "p.png").exit_code == 0
    assert {"p-1.png", "p-2.png"} <= {path.name for path in tmp_path.iterdir()}


def command(*arguments):
    return subprocess.run([sys.executable, "-m", "engines", *map(str, arguments)], capture_output=True, text=True, check=False)


def test_an_error_is_a_sentence_and_a_status(tmp_path):
    done = command(tmp_path, "a prompt")
    assert done.returncode == 6
    assert done.stderr.startswith("error: ")
    assert "manifest.json is missing" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_is_there_and_bad_usage_is_2():
    assert "--guidance-scale" in command("--help").stdout
    assert command().returncode == 2

"""A point's build is the ordinary one, and a whole sweep of a tiny model, killed in the middle, ends as if it had not been."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from engines.bundle import Bundle
from engines.errors import RecipeError
from exporter.recipe.schema import Recipe
from exporter.reference.cost import count
from exporter.stages.plan import Plan
from exporter.sweep.build_point import BuildTask, build_point

RECIPE = """\
model: {source: SOURCE}
sampler: {scheduler: EulerDiscreteScheduler, steps: [2]}
shapes: {height: [32, 32, 32], width: [32, 32, 32], batch: [1, 1, 1]}
checks: {prompts: [a red circle]}
"""
SWEEP = """\
recipe: base.yaml
axes:
  sampler.scheduler: [EulerDiscreteScheduler, HeunDiscreteScheduler]
  sampler.steps: [[2], [3], [0]]
constraints: [latency < 10 min]
measures: {prompts: [a red circle, a blue square], shown: 1, rounds: 1}
"""


@pytest.fixture
def recipe(tmp_path, tiny_sd):
    (tmp_path / "base.yaml").write_text(RECIPE.replace("SOURCE", str(tiny_sd)))
    return tmp_path / "base.yaml"


@pytest.mark.long
def test_a_build_says_what_the_bundle_is(recipe, tmp_path):
    task = BuildTask(recipe, ("checks.skip=a test of what is said",), tmp_path / "bundle", tmp_path / "store")
    first, again = build_point(task), build_point(task)
    manifest = Bundle.open(tmp_path / "bundle").manifest
    assert first.size == sum(file.size for file in manifest.files.values())
    assert first.parameters == sum(part.parameters for part in manifest.parts.values())
    assert first.multiply_adds == {name: size.multiply_adds for name, size in count(Plan(Recipe.load(recipe)).family).items()}
    assert 0 < again.seconds < first.seconds
    assert again.whole_seconds == first.whole_seconds > 0  # what a build from nothing takes, however much is there
    with pytest.raises(RecipeError, match=r"base\.yaml:1  components\.unte: this model has none"):
        build_point(BuildTask(recipe, ("components.unte.precision=bf16",), tmp_path / "b", tmp_path / "store"))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("recipe")
def test_a_sweep_that_is_killed_goes_on_and_one_that_is_done_does_nothing(tmp_path):
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    out, points = tmp_path / "report", tmp_path / "report" / "points"
    code = "from exporter.cli import main; main()"
    command = [sys.executable, "-c", code, "sweep", str(tmp_path / "sweep.yaml"), "-o", str(out)]
    variables = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    with subprocess.Popen(command, env=variables, start_new_session=True) as begun:
        while not (points.is_dir() and len(list(points.glob("*.json"))) >= 2):
            assert begun.poll() is None
            time.sleep(0.2)
        os.killpg(begun.pid, signal.SIGKILL)
    kept = {file.name: file.read_bytes() for file in points.glob("*.json")}
    assert len(kept) < 6
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    assert f"6 points; {len(kept)} are measured already" in done.stderr
    assert {name: (points / name).read_bytes() for name in kept} == kept
    found = json.loads((out / "report.json").read_text())
    assert [bool(point["failed"]) for point in found["points"]] == [False, False, True, False, False, True]
    assert all(point["values"]["psnr"] > 0 for point in found["points"][1:2] + found["points"][3:5])
    assert "sampler.steps[0]: must be at least 1, not 0" in found["points"][2]["failure"]
    assert (out / "index.html").stat().st_size > 10_000
    again = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    assert again.stderr.splitlines() == ["6 points; 6 are measured already"]

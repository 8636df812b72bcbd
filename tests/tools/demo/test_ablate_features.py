"""The ablation trains what it says, and its picture shows its table."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from exporter.recipe.schema import Recipe
from tests.exporter import models
from tools.demo import ablate_features
from tools.demo.ablate_features import CUT, NONE, SCRATCH, SOURCE, draw, jobs, write

RECIPE = """
model: {source: SOURCE}
sampler: {scheduler: EulerDiscreteScheduler, steps: [2], guidance: {mode: classifier_free, scale: 3.0}}
shapes: {height: [64, 64, 64], width: [64, 64, 64], batch: [1, 1, 1]}
components:
  unet:
    passes:
      - prune: {blocks: {mid_block: null}}
      - distill: {data: DATA, steps: 2, batch: 2, weights: {feature: 0.5}}
"""
PASSES = [{"prune": {"preset": "koala-700m"}}, {"distill": {"data": "scenes", "steps": 9, "weights": {"feature": 0.5}}}]


def test_trainings_differ_in_nothing_but_what_is_compared():
    found = list(jobs(PASSES, ["resnet", "last_of_stage"], 2, {"steps": 7}))
    assert [job.row for job in found] == [*["resnet", "last_of_stage", NONE, SCRATCH] * 2, CUT, SOURCE]
    for job in found:
        text = json.dumps({
            "model": {"source": "demo"},
            "sampler": {"steps": [1]},
            "shapes": {"height": [64] * 3, "width": [64] * 3},
            "components": {"unet": {"passes": job.passes}},
        })  # fmt: skip
        Recipe.parse(text, "one")
    told = {(job.row, job.seed): job.passes for job in found}
    assert told[SOURCE, 0] == []
    assert told[CUT, 0] == PASSES[:1]
    assert told["resnet", 1][1]["distill"] == {**PASSES[1]["distill"], "steps": 7, "features": "resnet", "seed": 1}
    assert told[NONE, 1][1]["distill"]["features"] is None
    prune, distill = (next(iter(step.values())) for step in told[SCRATCH, 1])
    assert prune == {"preset": "koala-700m", "weights": "random", "seed": 1}
    assert distill["weights"] == {"task": 1.0, "output": 0.0, "feature": 0.0}
    assert PASSES[1]["distill"]["steps"] == 9


def test_the_picture_shows_every_seed_and_the_best_first(tmp_path):
    shares = {"resnet": (0.5, 0.6), "self_attention": (0.8, 0.9), SOURCE: (0.95,), CUT: (0.0,)}
    rows = [
        {"features": name, "seed": seed, "steps": 5, "batch": 2, "total": 10, "share": share}
        for name, found in shares.items()
        for seed, share in enumerate(found)
    ]
    write(rows[::-1], tmp_path / "table.csv", list(shares))
    with (tmp_path / "table.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [(row["features"], int(row["seed"])) for row in read] == [(row["features"], row["seed"]) for row in rows]
    (axes,) = draw(read).axes
    assert [label.get_text().replace("\n", "_") for label in axes.get_xticklabels()] == ["self_attention", "resnet"]
    points = [line.get_ydata() for line in axes.lines if line.get_marker() == "o"]
    assert [list(each) for each in points] == [[0.8, 0.9], [0.5, 0.6]]


def test_what_failed_is_told_and_the_rest_is_kept(tmp_path, monkeypatch):
    def call(job, command, _threads):
        if job.row == "resnet":
            raise RuntimeError("resnet, seed 0: no room")
        if "--json" in command:
            group = {"right": 1, "total": 2, "share": 0.5}
            groups = dict.fromkeys(("all", "all-single", "held-out", "two"), group)
            with open(command[command.index("--json") + 1], "w") as file:  # noqa: PTH123
                json.dump({**groups, "parameters": {"unet": 3}, "device": "cpu"}, file)

    monkeypatch.setattr(ablate_features, "_call", call)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.replace("SOURCE", "demo").replace("DATA", str(tmp_path)))
    named = ["--table", str(tmp_path / "a.csv"), "--picture", str(tmp_path / "a.png")]
    done = CliRunner().invoke(ablate_features.main, [str(recipe), "--features", "resnet,self_attention", "--seeds", "1", *named])
    assert done.exit_code == 1
    assert "1 of 6 failed" in done.output
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = {row["features"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"self_attention", NONE, SCRATCH, CUT, SOURCE}
    assert rows[CUT]["steps"] == "0"
    assert (tmp_path / "a.png").stat().st_size > 1000


@pytest.mark.slow
def test_it_trains_and_scores(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    for number in range(4):
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(tmp_path / "data" / f"{number}.png")
        (tmp_path / "data" / f"{number}.txt").write_text("a red circle")
    source = models.save_sdxl(tmp_path / "model")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.replace("SOURCE", str(source)).replace("DATA", str(tmp_path / "data")))
    named = ["--table", str(tmp_path / "a.csv"), "--picture", str(tmp_path / "a.png"), "--count", "1", "--jobs", "2"]
    command = [sys.executable, "-m", "tools.demo.ablate_features", str(recipe), "--features", "self_attention", "--seeds", "1"]
    settings = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, *named], check=True, env=settings)
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = {row["features"]: row for row in csv.DictReader(file)}
    assert {name: int(row["steps"]) for name, row in rows.items()} == {
        "self_attention": 2, NONE: 2, SCRATCH: 2, CUT: 0, SOURCE: 0,
    }  # fmt: skip
    assert int(rows[SOURCE]["parameters"]) > int(rows[CUT]["parameters"]) == int(rows[SCRATCH]["parameters"])
    assert all(row["total"] == "2" for row in rows.values())

"""Trials of pipelines that stand in none of diffusers' lists, and where their rows are kept."""

import json

import pytest

from exporter.report import pipelines
from tools.coverage import __main__ as coverage
from tools.coverage import beside


def test_a_row_is_kept_beside_the_lists_and_stays_there(monkeypatch, tmp_path):
    before = {**pipelines.read()["rows"]}
    before.pop(beside.TASK)
    (tmp_path / "rows.json").write_text(json.dumps({"diffusers": "x", "rows": before}), encoding="utf-8")
    monkeypatch.setattr(pipelines, "FILE", tmp_path / "rows.json")
    row = {"pipeline": "DiTPipeline", "state": "works", "psnr": 99.0, "guidance": "none"}
    beside.keep("dit", row)
    beside.keep("ddpm", row)
    assert list(pipelines.read()["rows"][beside.TASK]) == ["ddpm", "dit"], "in the order of the models"
    coverage.keep({})
    assert pipelines.read()["rows"][beside.TASK] == {"ddpm": row, "dit": row}


@pytest.mark.long
@pytest.mark.parametrize("name", ["dit", "ddpm", "score-sde-ve", "stable-diffusion-latent-upscaler", "bria"])
def test_what_is_drawn_is_what_diffusers_draws(name):
    found = beside.row(name)
    assert (found["state"], found["psnr"] > 90) == ("works", True)
    assert found["fp16"] > 30


@pytest.mark.long
def test_a_refiner_goes_on_where_its_base_has_stopped():
    found = beside.row("stable-diffusion-xl-base-and-refiner")
    assert (found["state"], found["psnr"] > 90) == ("works", True)

"""The table of diffusers' pipelines: every name of its lists has a row, and a row says how its trial ended."""

import subprocess
from typing import NamedTuple

import click
import pytest
from click.testing import CliRunner

from exporter.report import pipelines
from tools.coverage import __main__ as coverage
from tools.coverage import beside
from tools.coverage.models import MADE


class Done(NamedTuple):
    """What a process leaves."""

    returncode: int
    stdout: str = ""
    stderr: str = ""


def test_every_name_of_diffusers_has_a_row_and_what_is_known_stays():
    known = {"text-to-image": {"flux": {"pipeline": "Renamed", "state": "works", "psnr": 120.0, "guidance": "none"}}}
    found = coverage.listed(known)
    assert {task: list(rows) for task, rows in found.items()} == {task: list(kinds) for task, kinds in coverage.TASKS.items()}
    assert found["text-to-image"]["flux"] == known["text-to-image"]["flux"] | {"pipeline": "FluxPipeline"}
    assert found["text-to-image"]["kandinsky"]["state"] == "not tried"
    assert found["inpainting"]["stable-diffusion-xl"]["state"] == "tested"


def test_the_rows_that_are_shipped_are_of_every_name():
    shipped = {**pipelines.read()["rows"]}
    assert list(shipped.pop(beside.TASK)) == list(beside.MADE)
    assert {task: list(rows) for task, rows in shipped.items()} == {task: list(kinds) for task, kinds in coverage.TASKS.items()}


def test_each_micro_model_has_a_name_of_diffusers_or_a_variant_s():
    variants = {"flux-guided", "stable-diffusion-controlnets", "instruct-pix2pix", "stable-diffusion-adapter"}
    variants |= {"qwenimage-edit-plus-two"}
    assert {model for model in MADE if coverage.place(model) is None} == variants
    assert coverage.place("stable-diffusion-inpaint") == ("inpainting", "stable-diffusion")


PLACED = ["lcm", "pixart-sigma-pag", "flux-kontext", "hunyuan", "stable-diffusion-xl-controlnet-pag", "stable-diffusion-inpaint"]


@pytest.mark.parametrize("model", PLACED)
def test_micro_models_are_of_the_class_of_their_name(model):
    task, name = coverage.place(model)
    assert type(MADE[model]()) is coverage.TASKS[task][name]


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
    assert coverage.tried("flux", 1) == row


def test_a_trial_that_takes_too_long_is_a_row(monkeypatch):
    def run(*_, timeout, **__):
        raise subprocess.TimeoutExpired("python", timeout)

    monkeypatch.setattr(subprocess, "run", run)
    assert coverage.tried("flux", 7) == {"state": "not built", "why": "it took more than 7 s"}


def test_rows_are_kept_one_by_one_and_those_that_work_are_not_tried_again(monkeypatch, tmp_path):
    tried = []

    def trial(name, _seconds, known=None):
        assert known is None
        tried.append(name)
        if name == "sana":
            raise click.Abort
        return {"state": "works", "psnr": 99.0, "guidance": "none"}

    monkeypatch.setattr(pipelines, "FILE", tmp_path / "rows.json")
    monkeypatch.setattr(coverage, "tried", trial)
    assert CliRunner().invoke(coverage.main, ["flux", "sana"]).exit_code == 1  # interrupted
    assert pipelines.read()["rows"]["text-to-image"]["flux"]["psnr"] == 99.0
    monkeypatch.setattr(coverage, "MADE", {name: MADE[name] for name in ("flux", "auraflow", "flux-guided")})
    assert CliRunner().invoke(coverage.main, []).exit_code == 0
    assert tried == ["flux", "sana", "auraflow"]
    assert CliRunner().invoke(coverage.main, ["--again"]).exit_code == 0
    assert tried[3:] == ["flux", "auraflow"]


def test_of_rows_that_work_the_figures_in_fp16_that_they_lack_are_measured_alone(monkeypatch, tmp_path):
    asked = []

    def tried(name, _seconds, known):
        asked.append(name)
        return {"state": "failed", "why": "killed"} if name == "sana" else {**known, "fp16": 61.0}

    monkeypatch.setattr(pipelines, "FILE", tmp_path / "rows.json")
    monkeypatch.setattr(coverage, "tried", tried)
    works = {"state": "works", "psnr": 99.0, "guidance": "none"}
    coverage.keep(
        {"flux": works, "sana": works, "auraflow": {**works, "fp16": 70.0}, "chroma": {"state": "refused", "why": "no"}}
    )
    done = CliRunner().invoke(coverage.main, ["--halves"])
    assert (done.exit_code, sorted(asked)) == (0, ["flux", "sana"])
    assert "sana: killed" in done.output
    rows = pipelines.read()["rows"]["text-to-image"]
    assert [rows[name].get("fp16") for name in ("flux", "sana", "auraflow")] == [61.0, None, 70.0]
    assert rows["sana"]["state"] == "works"


def test_a_micro_model_of_another_list_has_its_row_there(monkeypatch, tmp_path):
    monkeypatch.setattr(pipelines, "FILE", tmp_path / "rows.json")
    before = coverage.listed({})["text-to-image"]["stable-diffusion"]
    coverage.keep({"stable-diffusion-inpaint": {"state": "works", "psnr": 99.0, "guidance": "none"}})
    rows = pipelines.read()["rows"]
    row = {"pipeline": "StableDiffusionInpaintPipeline", "state": "works", "psnr": 99.0, "guidance": "none"}
    assert rows["inpainting"]["stable-diffusion"] == row
    assert rows["text-to-image"]["stable-diffusion"] == before

"""Rows of diffusers' pipelines: every name of its lists has one, each is measured by one trial, and what is known stays."""

import json
from datetime import date
from types import SimpleNamespace

import pytest

from exporter.report import pipelines
from tools.coverage import rows
from tools.coverage.models import BESIDE, MADE

WORKS = {"state": "works", "psnr": 99.0, "guidance": "none"}
DAY = date.today().isoformat()  # noqa: DTZ011 - as the tool has it
TODAY = {"measured": {"fp32": DAY}}


@pytest.fixture
def kept(monkeypatch, tmp_path):
    monkeypatch.setattr(pipelines, "FILE", tmp_path / "rows.json")
    return lambda: pipelines.read()["rows"]


def trial(module, name):
    (found,) = (each for each in rows.trials() if (each.module, each.name) == (module, name))
    return found


def test_every_name_of_diffusers_has_a_row_and_what_is_known_stays():
    known = {"text-to-image": {"flux": {"pipeline": "Renamed", "state": "works", "psnr": 120.0, "guidance": "none"}}}
    found = rows.listed(known)
    assert found.pop(rows.UNLISTED) == {}
    assert {task: list(own) for task, own in found.items()} == {task: list(kinds) for task, kinds in rows.TASKS.items()}
    assert found["text-to-image"]["flux"] == known["text-to-image"]["flux"] | {"pipeline": "FluxPipeline"}
    assert found["text-to-image"]["kandinsky"]["state"] == "not tried"
    assert found["inpainting"]["stable-diffusion-xl"]["state"] == "tested"


def test_the_rows_that_are_shipped_are_of_every_name():
    shipped = {**pipelines.read()["rows"]}
    assert list(shipped.pop(rows.UNLISTED)) == list(BESIDE)
    assert {task: list(own) for task, own in shipped.items()} == {task: list(kinds) for task, kinds in rows.TASKS.items()}


def test_a_row_that_says_what_came_of_it_is_measured_by_one_trial():
    measured = [(task, name) for each in rows.trials() for task, name in each.places.items()]
    assert len(measured) == len(set(measured))
    told = {(task, name) for task, own in pipelines.read()["rows"].items() for name, row in own.items() if "psnr" in row}
    assert told <= set(measured)


def test_each_micro_model_has_a_name_of_diffusers_or_a_variant_s():
    variants = {"flux-guided", "stable-diffusion-controlnets", "instruct-pix2pix", "stable-diffusion-adapter"}
    variants |= {"qwenimage-edit-plus-two"}
    assert {model for model in MADE if rows.place(model) is None} == variants
    assert rows.place("stable-diffusion-inpaint") == ("inpainting", "stable-diffusion")


PLACED = ["lcm", "pixart-sigma-pag", "flux-kontext", "hunyuan", "stable-diffusion-xl-controlnet-pag", "stable-diffusion-inpaint"]


@pytest.mark.parametrize("model", PLACED)
def test_micro_models_are_of_the_class_of_their_name(model):
    task, name = rows.place(model)
    assert type(MADE[model]()) is rows.TASKS[task][name]


def test_a_pipeline_that_begins_with_its_picture_runs_the_networks_of_the_one_from_text_where_it_has_none_of_its_own():
    assert rows.edited("flux") == ("inpainting", "image-to-image")
    assert rows.edited("stable-diffusion") == ("image-to-image",), "a mask is filled by nine channels"
    assert rows.edited("flux-kontext") == rows.edited("auraflow") == ()


def test_a_row_is_kept_with_its_day_and_no_other_changes(kept):
    rows.keep(trial("trial", "auraflow"), WORKS)
    before = kept()
    rows.keep(trial("edits", "flux"), {"image-to-image": WORKS, "inpainting": {"state": "refused", "why": "no"}})
    after = kept()
    assert after["inpainting"].pop("flux") == {"pipeline": "FluxInpaintPipeline", "state": "refused", "why": "no", **TODAY}
    assert after["image-to-image"].pop("flux") == {"pipeline": "FluxImg2ImgPipeline", **WORKS, **TODAY}
    for task in ("image-to-image", "inpainting"):
        before[task].pop("flux")
    assert after == before


def test_a_micro_model_of_another_list_has_its_row_there(kept):
    before = rows.listed({})["text-to-image"]["stable-diffusion"]
    rows.keep(trial("trial", "stable-diffusion-inpaint"), WORKS)
    row = {"pipeline": "StableDiffusionInpaintPipeline", **WORKS, **TODAY}
    assert kept()["inpainting"]["stable-diffusion"] == row
    assert kept()["text-to-image"]["stable-diffusion"] == before


def test_beside_the_lists_rows_stand_in_the_order_of_the_models_and_one_that_failed_says_of_what_pipeline(kept):
    rows.keep(trial("beside", "dit"), {"pipeline": "DiTPipeline", **WORKS})
    rows.keep(trial("beside", "ddpm"), {"state": "failed", "why": "killed"})
    assert json.dumps(kept()[rows.UNLISTED]) == json.dumps(
        {
            "ddpm": {"pipeline": "DDPMPipeline", "state": "failed", "why": "killed", **TODAY},
            "dit": {"pipeline": "DiTPipeline", **WORKS, **TODAY},
        }
    )


def test_a_figure_in_fp16_that_is_not_measured_anew_stays_with_its_day_while_the_row_works(kept, monkeypatch):
    def row():
        return kept()["text-to-image"]["auraflow"]

    auraflow = trial("trial", "auraflow")
    rows.keep(auraflow, {**WORKS, "fp16": 61.0})
    assert row()["measured"] == {"fp32": DAY, "fp16": DAY}
    monkeypatch.setattr(rows, "date", SimpleNamespace(today=lambda: date(2999, 1, 1)))
    rows.keep(auraflow, {**WORKS, "psnr": 98.0})
    assert (row()["psnr"], row()["fp16"], row()["measured"]) == (98.0, 61.0, {"fp32": "2999-01-01", "fp16": DAY})
    rows.keep(auraflow, {"state": "refused", "why": "no"})
    assert "fp16" not in row()

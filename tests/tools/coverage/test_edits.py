"""Trials of what starts from a picture: a row for each task of a name, kept beside all others."""

import json

import pytest

from exporter.report import pipelines
from tools.coverage import __main__ as coverage
from tools.coverage import edits


def test_a_name_s_rows_are_kept_for_its_tasks_and_no_other_changes(monkeypatch, tmp_path):
    before = coverage.listed(pipelines.read()["rows"])
    (tmp_path / "rows.json").write_text(json.dumps({"diffusers": "x", "rows": before}), encoding="utf-8")
    monkeypatch.setattr(pipelines, "FILE", tmp_path / "rows.json")
    row = {"state": "works", "psnr": 99.0, "guidance": "none"}
    edits.keep("flux", {"image-to-image": row, "inpainting": row})
    after = pipelines.read()["rows"]
    assert after["inpainting"].pop("flux") == {"pipeline": "FluxInpaintPipeline", **row}
    assert after["image-to-image"].pop("flux") == {"pipeline": "FluxImg2ImgPipeline", **row}
    for task in ("image-to-image", "inpainting"):
        before[task].pop("flux")
    assert after == before


def test_a_mask_is_filled_by_the_model_of_which_diffusers_fills_masks():
    made = edits.MADE["stable-diffusion-3"](), edits.OWN["stable-diffusion-3", "inpainting"]()
    assert [each.transformer.config.in_channels for each in made] == [4, 16]
    assert [each.vae.config.shift_factor > 0 for each in made] == [True, False]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_bundle_starts_from_pictures_and_fills_masks_as_diffusers_does():
    """Packed latents, times by the size, and strengths that end within a step."""
    found = edits.rows("flux")
    assert {task: row["state"] for task, row in found.items()} == {"image-to-image": "works", "inpainting": "works"}

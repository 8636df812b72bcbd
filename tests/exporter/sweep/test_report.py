"""The report's four files say the same."""

import csv
import json
from dataclasses import replace

import pytest

from engines.errors import MachineError
from exporter.sweep import report
from exporter.sweep.spec import SearchOptions
from tests.exporter.sweep import made


@pytest.fixture
def swept(tmp_path):
    return made.swept(tmp_path)


def test_files_are_written_and_a_terminal_shows_the_best_first(swept, tmp_path):
    shown = report.write(*swept, tmp_path)
    content = json.loads((tmp_path / "report.json").read_text())
    assert len(content["points"]) == 36
    assert shown["points"][0]["point"] == "bf16"
    assert [row["failed"] for row in shown["points"]] == [""] * 23 + ["", *["recipe"] * 12]
    assert shown["in words"] == content["sentences"]
    with (tmp_path / "points.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 36
    assert rows[1]["psnr"] == "39.6"
    assert (float(rows[1]["psnr_low"]), float(rows[1]["psnr_high"])) == pytest.approx((38.6, 40.6), abs=0.1)
    assert rows[1]["run.steps"] == "25"
    assert "energy" not in rows[1]  # which nothing told of
    assert "energy a picture" not in shown["points"][0]
    assert float(rows[1]["latency"]) == content["points"][1]["values"]["latency"] == pytest.approx(0.225)
    text = (tmp_path / "report.md").read_text()
    assert "## What failed" in text
    assert "| network | <half> | whole | psnr | -3 (-3 to -3) | 11 | worse |" in text
    assert content["sentences"][0] in text


def test_the_sentence_names_the_quickest_that_is_not_worse(swept):
    found = report.content(*swept)
    assert found["sentences"][0] == (
        "Within latency < 100 ms: steps 8 is best by PSNR, 38.75 (37.75 to 39.75), "
        "80 ms, 500.0 MB of memory, 40.0 MB on disk. By 3 prompts one other point cannot be told from it, the quickest of which "
        "is steps 8 · bf16, 38.75 (37.75 to 39.75), 72 ms, 500.0 MB of memory, 40.0 MB on disk. "
        "Take that one."
    )
    assert found["sentences"][1].endswith("By 3 prompts every other point there is worse. Take it.")
    assert found["sentences"][3].endswith("no point keeps them all.")
    names = [found["points"][index]["name"] for index in found["chosen"]]
    assert names == ["steps 8 · bf16", "bf16"]


def test_each_point_has_what_builds_it_and_the_way_to_it(swept):
    asked, _ = swept
    found = {each["name"]: each for each in report.content(*swept)["points"]}
    point = found["<half> · DDIMScheduler · steps 4"]
    build, draw = point["command"].splitlines()
    assert build.startswith(f"t2iexport build {asked.base} --set 'components.unet.passes=[{{")
    assert draw.endswith("'a red circle' --steps 4")
    assert "koala-700m" in point["recipe"]
    assert len(point["path"]) == 4  # by one axis at a time
    assert point["path"][0] == 0
    assert found["base"]["command"].count("\n") == 0


def test_without_constraints_there_is_one_answer(tmp_path):
    text = "".join(line for line in made.SWEEP.splitlines(keepends=True) if not line.startswith("constraints"))
    asked, swept = made.swept(tmp_path, text)
    assert [text[:13] for text in report.content(asked, swept)["sentences"]] == ["Of 23 points:"]


def test_a_folder_that_cannot_be_written_is_a_sentence(swept, tmp_path):
    (tmp_path / "report.json").mkdir()
    with pytest.raises((MachineError, IsADirectoryError)):
        report.write(*swept, tmp_path)


def test_what_is_to_be_known_of_a_score_is_said_once(swept):
    asked, points = swept
    told = []
    for each in points:
        noted = each.result.measured and each.result.measured.model_copy(update={"notes": ("n",)})
        told.append(replace(each, result=each.result.model_copy(update={"measured": noted})))
    assert report.content(asked, told)["sentences"] == [*report.content(asked, points)["sentences"], "n"]


def test_a_search_says_what_it_did_not_try(swept):
    asked, points = swept
    found = report.content(replace(asked, search=SearchOptions(points=35)), points)
    told = "35 of 36 combinations were tried, each chosen by what the earlier ones gave: others may be better."
    assert found["sentences"] == [*report.content(asked, points)["sentences"], told]

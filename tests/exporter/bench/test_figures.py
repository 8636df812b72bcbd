"""A benchmark's tables, JSON and picture hold the figures that were measured."""

import json
import re

import pytest
from PIL import Image

from engines.errors import MissingDependency
from exporter import machine
from exporter.bench import figures
from tests.exporter.bench.test_run import report


def test_tables_have_ratios_first(capsys):
    from exporter.report import console

    console.show(figures.tables(report()))
    printed = capsys.readouterr().out
    lines = [line.split() for line in printed.splitlines()]
    assert any(" ".join(line) == "who runs on times as long PSNR dB p50 ms p95 ms pictures/s" for line in lines)
    assert ["mine", "b", "1.00", "61.2", "1000", "1900", "2"] in lines
    assert ["diffusers", "b", "2.00", "reference", "4000", "5350", "0.5"] in lines
    assert ["mine", "1.50", "150"] in lines
    assert ["denoiser", "4", "500", "1400", "62.5%"] in lines
    assert not any(line[:1] == ["text"] for line in lines)  # it took no time
    alone = report(timings=report().timings[:1], psnr={"mine": 200.0}, reference="mine")
    console.show(figures.tables(alone))
    assert "PSNR" not in capsys.readouterr().out


def test_json_holds_the_machine_and_every_figure():
    found = json.loads(json.dumps(figures.content(report())))
    assert set(found) == {"environment", "task", "psnr", "cold", "timings", "operators"}
    assert set(found["environment"]) == set(machine.Environment.model_fields)
    assert found["task"]["repeats"] == 3
    assert found["psnr"] == {"reference": "diffusers", "mine": 61.25, "diffusers": 200.0}
    assert found["cold"]["mine"] == {"seconds": 1.5, "peak": 150_000_000}
    mine, other = found["timings"]
    assert other["times_as_long"] == 2.0
    assert mine["stages"]["denoiser"] == {"p50": 0.5, "p95": 1.4, "share": 0.625, "calls": 4, "seconds": [0.5, 1.5, 0.5]}


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_plot_draws_every_stage(tmp_path, suffix):
    pytest.importorskip("matplotlib")
    path = tmp_path / f"budget.{suffix}"
    figures.plot(report(), path)
    assert path.stat().st_size > 5_000
    if suffix == "png":
        with Image.open(path) as drawn:
            assert len(set(drawn.convert("RGB").get_flattened_data())) > 10


def test_a_plot_without_matplotlib_says_what_to_install(monkeypatch):
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(MissingDependency, match=r"pip install 't2iexport\[plot\]'"):
        figures.require_plot()


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.0123456, "12.3"), (0.000123456, "0.123"), (0.1, "100"), (12.3456, "12346"), (0, "0")]
)
def test_milliseconds_have_three_digits_or_all_before_the_point(seconds, told):
    assert figures._milliseconds(seconds) == told


def test_batches_have_tables_of_their_own_and_stages_are_the_first_batch_s():
    one = report()
    larger = [timing.model_copy(update={"batch": 4}) for timing in one.timings]
    facts = figures.tables(report(timings=(*one.timings, *larger), cold={}))
    titles = [name for name, value in facts.items() if not isinstance(value, str)]
    assert titles == [
        "from prompt to PNG, batch 2", "from prompt to PNG, batch 4",
        "where the time of mine goes, batch 2", "where the time of diffusers goes, batch 2",
    ]  # fmt: skip
    assert [row["who"] for row in facts["from prompt to PNG, batch 4"]] == ["mine", "diffusers"]
    assert facts["task"] == "'a sea', 4 steps, 64 x 32 px, guidance 2"
    free = report(task=one.task.model_copy(update={"guidance_scale": None}))
    assert figures.tables(free)["task"].endswith("64 x 32 px")


def test_a_picture_that_is_the_reference_s_is_exact():
    rows = figures.tables(report(psnr={"mine": 200.0, "diffusers": 200.0}))["from prompt to PNG, batch 2"]
    assert [row["PSNR dB"] for row in rows] == ["exact", "reference"]


def test_bars_are_the_medians_end_to_end(tmp_path):
    pytest.importorskip("matplotlib")
    figures.plot(report(), tmp_path / "a.svg")
    drawn = (tmp_path / "a.svg").read_text()
    for colour in ("#1d4e89", "#a23b2a"):  # denoiser and decoder, one bar each a contestant, and in the legend
        assert drawn.count(f"fill: {colour}") == 3
    widths = [
        float(end) - float(start)
        for start, end in re.findall(r'd="M ([\d.]+) [\d.]+ \nL ([\d.]+) [\d.]+ [^"]*"[^>]*style="fill: #1d4e89"', drawn)[:2]
    ]
    assert widths[1] / widths[0] == pytest.approx(3.5 / 0.5, rel=1e-3)

"""What the command line prints, and the files it writes for programs."""

import json
from xml.etree import ElementTree as ET

import pytest

from engines.bundle import Verdict
from engines.errors import MachineError
from exporter.report import console


def verdict(*, passed=True, psnr=61.25, **changes):
    made = {"part": "unet", "stage": "onnx → engine", "case": "call 1", "backend": "openvino", "note": "bf16 inside"}
    return Verdict(**made | changes, values={} if psnr is None else {"psnr": psnr}, limit={"psnr": 30.0}, passed=passed)


def test_facts_are_aligned_and_rows_are_tables(capsys):
    console.show({"name": "x", "longer name": "y", "notes": ["one", "two"], "none": [], "rows": [{"a": "b", "n": "1"}]})
    assert capsys.readouterr().out.splitlines() == [
        "name         x", "longer name  y", "", "notes", "  one", "  two", "", "rows", "  a  n", "  b  1",
    ]  # fmt: skip


def test_numbers_stand_on_the_right_and_empty_columns_are_left_out(capsys):
    rows = [{"who": "a", "MB": "1.5", "version": "1", "none": ""}, {"who": "bcd", "MB": "12.25", "version": "10", "none": None}]
    console.table(console.console(), rows)
    assert capsys.readouterr().out.splitlines() == ["  who     MB  version", "  a      1.5  1", "  bcd  12.25  10"]


def test_words_that_look_like_markup_are_words(capsys):
    console.show({"name": "[red]x[/red] :smile:", "rows": [{"a": "[b]" + "y" * 300}]})
    out = capsys.readouterr().out
    assert "[red]x[/red] :smile:" in out
    assert f"[b]{'y' * 300}" in out, "what is piped is not wrapped"
    assert "\x1b" not in out


def test_verdicts_are_json(tmp_path):
    rows = console.verdict_rows([verdict(), verdict(psnr=None)])
    assert [row["values"] for row in rows] == [{"psnr": 61.25}, {}]
    console.write_json(tmp_path / "a.json", {"verdicts": rows, "é": "木"})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text)["verdicts"] == rows
    assert '"é": "木"' in text
    assert text.endswith("}\n")


def test_verdicts_are_junit(tmp_path):
    verdicts = [verdict(), verdict(passed=False, psnr=12.34, backend=None), verdict(passed=False, psnr=None, note="")]
    console.write_junit(tmp_path / "a.xml", "small", verdicts)
    suite = ET.parse(tmp_path / "a.xml").getroot()  # noqa: S314 - just written
    assert suite.attrib == {"name": "small", "tests": "3", "failures": "2"}
    cases = list(suite)
    assert [case.get("classname") for case in cases] == ["small.unet"] * 3
    assert [case.get("name") for case in cases[:2]] == ["onnx → engine · call 1 · openvino", "onnx → engine · call 1"]
    messages = [failure.get("message") for case in cases for failure in case]
    assert messages == ["PSNR 12.3 dB; limit 30 dB. bf16 inside", "not measured; limit 30 dB."]


def test_a_file_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    for write in (lambda path: console.write_json(path, {}), lambda path: console.write_junit(path, "x", [])):
        with pytest.raises((MachineError, NotADirectoryError)):
            write(tmp_path / "file" / "a")

"""The table of formats answers for every target."""

import pytest

from engines import plugins
from engines.errors import UnsupportedError
from exporter.quantization import formats


def test_a_target_that_does_not_take_a_format_is_named():
    with pytest.raises(UnsupportedError, match=r"openvino does not take fp8.*\n.*fp8 is for tensorrt, tensorrt_rtx"):
        formats.refuse("fp8", ["tensorrt_rtx", "openvino"])
    with pytest.raises(UnsupportedError, match=r"fp8 needs compute capability 8\.9; compute_capabilities names 8\.6"):
        plugins.load("backends", "tensorrt_rtx")(compute_capabilities=["8.6", "8.9"]).refuse("fp8")
    for name in formats.offered():
        assert any(name in backend.formats for backend in plugins.known("backends").values()), name


def test_every_backend_answers_for_every_format_once():
    for name, backend in plugins.known("backends").items():
        assert not set(backend.formats) & set(backend.refused_formats), name
        assert set(backend.formats) | set(backend.refused_formats) == set(formats.offered()), name


def test_what_is_not_offered_says_why_and_what_is():
    assert "nvfp4" not in formats.offered()
    with pytest.raises(UnsupportedError, match=r"nvfp4 is not offered: its calibration .*\n  There are: int8, .*fp8"):
        formats.refuse("nvfp4", [])
    with pytest.raises(UnsupportedError, match="no format 'in8'; did you mean 'int8'"):
        formats.refuse("in8", [])
    for name in formats.offered():
        formats.refuse(name, ["tensorrt_rtx"])


def test_the_table_has_a_row_for_every_answer_and_says_what_a_format_is_once():
    rows = formats.rows()
    offered, refused = len(formats.offered()), len(formats.FORMATS) - len(formats.offered())
    assert len(rows) == offered * len(plugins.names("backends")) + refused
    for name, form in formats.FORMATS.items():
        own = [row for row in rows if row["format"] == name]
        assert [row["what"] for row in own if row["what"]] == [form.about]
        assert [row["target"] for row in own] == sorted(row["target"] for row in own)
    answers = {(row["format"], row["target"]): row["answer"] for row in rows}
    assert answers["fp8", "openvino"] == f"refused: {plugins.load('backends', 'openvino').refused_formats['fp8']}"
    assert answers["int8", "tensorrt"] == "int8 arithmetic"
    assert answers["svdquant", "none"].startswith("refused: ")


def test_which_formats_need_ranges():
    assert {name for name in formats.offered() if formats.FORMATS[name].activations} == {
        "int8", "int8-smoothquant", "int8-hybrid", "fp8"
    }  # fmt: skip

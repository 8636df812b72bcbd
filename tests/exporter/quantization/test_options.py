"""What a quantization is asked to do makes sense, or is refused."""

import pytest
from pydantic import ValidationError

from exporter.passes.quantize import Quantize
from exporter.quantization.options import QuantizeOptions


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"format": "int9"}, "no format 'int9'; did you mean 'int8'"),
        ({"format": "nvfp4"}, "needs tensors on a CUDA device"),
        ({"format": "svdquant"}, "needs tensors on a CUDA device"),
        ({"format": "int8", "keep_above": 30, "budget": 0.5}, "keep_above and budget each say"),
        ({"format": "int8", "untouched": ["conv_in"]}, "untouched says what rest leaves, and rest is none"),
        ({"format": "int8", "samples": 1}, "greater than or equal to 2"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, said):
    with pytest.raises(ValidationError, match=said):
        Quantize(**options)


def test_formats_without_activations_need_no_recording():
    assert not Quantize(format="int8-weights").recorded
    assert not Quantize(format="int4-weights", search=False).recorded
    assert Quantize(format="int4-weights").recorded
    assert Quantize(format="int8-weights", keep_above=40).recorded
    assert Quantize(format="int8").recorded
    assert not Quantize(format="int8", calibration="c.json").recorded


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"format": "int8", "budget": 0}, "budget"), ({"format": "int8", "budget": 1.01}, "budget"),
        ({"format": "int8", "percentile": 50}, "percentile"), ({"format": "int8", "alpha": 1.1}, "alpha"),
        ({"format": "int4-weights", "block": 48}, "block"), ({"format": "int8", "keep": [""]}, "keep"), ({}, "format"),
        ({"format": "int8", "keep_above": 30, "calibration": "c"}, "keep_above and calibration each say"),
    ],
)  # fmt: skip
def test_bounds(options, said):
    with pytest.raises(ValidationError, match=said):
        QuantizeOptions(**options)


def test_a_wish_knows_its_format():
    assert QuantizeOptions(format="int8-hybrid").form.product == ""
    assert QuantizeOptions(format="int8", rest="int8-weights", untouched=["conv_in"]).untouched == ("conv_in",)

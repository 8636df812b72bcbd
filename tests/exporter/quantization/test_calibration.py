"""A calibration is plain data, read back as it was written."""

import json

import numpy as np
import pytest
from pydantic import ValidationError

from engines.errors import RecipeError
from exporter.quantization.calibration import LARGEST, Calibration, Spec, read, short
from tests.exporter.passes.layered import quantized


def test_a_calibration_is_read_back_as_it_was_written(tmp_path):
    found, _ = quantized(tmp_path, format="int8", budget=0.5)
    found.dump(tmp_path / "unet.json")
    assert read(tmp_path / "unet.json", "here") == found
    seen = json.loads((tmp_path / "unet.json").read_text())["seen"]["middle"]
    assert len(seen["steps"]) == 6
    assert sum(seen["histogram"]) == 6 * 16 * 8 * 8


def test_a_file_that_is_no_calibration_is_refused(tmp_path):
    (tmp_path / "c.json").write_text('{"part": "unet"}')
    with pytest.raises(RecipeError, match="not a calibration of this version"):
        read(tmp_path / "c.json", "here")
    with pytest.raises(RecipeError, match="is not a file"):
        read(tmp_path / "none.json", "here")


def test_the_schema_of_a_calibration_is_closed():
    assert Calibration.model_config["extra"] == "forbid"


def test_four_digits_are_kept():
    assert [short(value) for value in (1.23456, 123456.0, -0.000123456, 0.0)] == [1.235, 123500.0, -0.0001235, 0.0]


@pytest.mark.parametrize("changes", [{"weights": "int2"}, {"range": 0.0}, {"output": -1.0}, {"range": float("inf")}, {"bits": 8}])
def test_a_layer_that_cannot_be(changes):
    with pytest.raises(ValidationError):
        Spec(**{"weights": "int8", **changes})


def test_the_largest_numbers_are_those_of_the_types():
    import ml_dtypes

    assert LARGEST["int8"] == np.iinfo(np.int8).max
    assert LARGEST["int4"] == ml_dtypes.iinfo(ml_dtypes.int4).max
    assert LARGEST["fp8"] == float(ml_dtypes.finfo(ml_dtypes.float8_e4m3fn).max)


def test_a_folder_and_a_number_as_text_are_refused(tmp_path):
    with pytest.raises(RecipeError, match=r"unet\.calibration: .* is not a file; a bundle keeps its calibrations"):
        read(tmp_path, "unet.calibration")
    layers = {"a": Spec(weights="int8")}
    whole = Calibration(part="unet", digest="0", format="int8", ranges="", samples=(), layers=layers, kept={})
    whole.dump(tmp_path / "c.json")
    assert read(tmp_path / "c.json", "x") == whole
    (tmp_path / "c.json").write_text((tmp_path / "c.json").read_text().replace('"measured": null', '"measured": "3"'))
    with pytest.raises(RecipeError, match="measured: Input should be a valid number"):
        read(tmp_path / "c.json", "x")

"""A part of a graph, run by itself, says what it says inside the whole."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from exporter.parity.cut import cut
from exporter.parity.layers import Layers
from exporter.parity.sides import reference
from tests.exporter.graph import small

X = np.array([0.5, -3.0], np.float32)


def model(*lines):
    return Layers(small.model(*lines)).model  # with a type at every value


def test_a_value_inside_is_the_same_alone():
    whole = model("a = Mul(x, two)", "b = Relu(a)", "y = Add(b, one)")
    play = reference()
    inside = play(cut(whole, {"x": X}, ["a", "b", "y"]))
    np.testing.assert_array_equal(inside["b"], [1, 0])
    alone = play(cut(whole, {"a": inside["a"]}, ["y"]))
    np.testing.assert_array_equal(alone["y"], inside["y"])


def test_half_precision_and_masks_leave_and_enter_in_types_that_engines_take(tmp_path):
    whole = model("h = Cast<to=10>(x)", "A_b = Mul(h, h)", "m = Less(x, one)", "w = Where(m, A_b, h)", "y = Cast<to=1>(w)")
    play = reference()
    inside = play(cut(whole, {"x": X}, ["h", "A_b", "m", "y"]))
    assert {name: str(array.dtype) for name, array in inside.items()} == {
        "h": "float32",
        "A_b": "float32",
        "m": "int64",
        "y": "float32",
    }
    part = cut(whole, {name: inside[name] for name in ("h", "A_b", "m")}, ["w"])
    assert sorted(part.feeds) == ["a_b", "h"]  # a mask is a constant of the call
    np.testing.assert_array_equal(play(part)["w"], inside["y"])
    part.signature({part.ports["w"]: X.shape})
    onnx.checker.check_model(str(part.save(tmp_path / "part.onnx")), full_check=True)


def test_what_nothing_reads_is_no_input_and_the_whole_stays_as_it_was():
    whole = model("a = Mul(two, one)", "y = Add(a, x)")
    before = ir.to_proto(whole).SerializeToString()
    part = cut(whole, {"x": X}, ["a"])
    assert dict(part.feeds) == {}
    assert part.signature({"a": (2,)}).outputs[0].shape == (2,)
    assert ir.to_proto(whole).SerializeToString() == before


def test_an_end_that_is_not_there_is_not_invented():
    with pytest.raises(ValueError, match="nowhere"):
        cut(model("y = Add(x, one)"), {"x": X}, ["nowhere"])

"""A graph seen at some of its values: what each is made of, by which nodes, and of which module; drawn by hand."""

import onnx_ir as ir
import pytest

from exporter.parity.layers import Layers
from exporter.parity.module_names import WRAPPER
from tests.exporter.graph import small

#: x → a → b ┐
#:     a ─────┴ c → y, and of d only the shape is read.
LINES = "a = Mul(x, two)", "b = Relu(a)", "c = Add(b, a)", "d = Neg(x)", "s = Shape(d)", "y = Expand(c, s)"


def kinds(layers, name):
    return [node.op_type for node in layers.nodes(name)]


@pytest.fixture
def whole():
    return Layers(small.model(*LINES))


def test_without_modules_every_value_is_known_in_its_order(whole):
    assert list(whole.known) == ["x", "a", "b", "c", "d", "s", "y"]
    assert (whole.inputs, whole.outputs) == (["x"], ["y"])


def test_with_modules_only_those_that_the_source_has_and_the_ends():
    layers = Layers(small.model(*LINES), {"b": "act", "d": ""})
    assert list(layers.known) == ["x", "b", "d", "y"]
    assert layers.parents("y") == ["b", "x"]
    assert kinds(layers, "y") == ["Mul", "Add", "Shape", "Expand"]
    assert (layers.module("b"), layers.module("d")) == ("act", WRAPPER)


def test_every_value_has_a_type(whole):
    assert whole.known["c"].dtype == ir.DataType.FLOAT
    assert [name for name in whole.known if not whole.is_real(name)] == ["s"]


def test_a_value_is_made_of_the_nearest_known_ones(whole):
    assert whole.parents("a") == ["x"]
    assert sorted(whole.parents("c")) == ["a", "b"]
    assert whole.parents("x") == []
    assert (kinds(whole, "c"), kinds(whole, "x")) == (["Add"], [])


def test_of_what_only_the_shape_is_read_is_told_on_request(whole):
    assert whole.parents("s") == []
    assert whole.parents("s", sizes=True) == ["d"]
    assert kinds(whole, "s") == ["Shape"]


def test_all_real_values_above_one_come_in_their_order(whole):
    assert whole.above("c") == ["x", "a", "b"]
    assert whole.above("y") == ["x", "a", "b", "c"]
    assert whole.above("x") == []


ALL = ["a", "b", "c", "d", "s", "y"]


@pytest.mark.parametrize(("depth", "names"), [(1, ["y"]), (2, ["c", "s", "y"]), (3, ALL), (9, ALL)])
def test_what_is_near_goes_back_step_by_step_but_not_to_the_inputs(whole, depth, names):
    assert whole.near("y", depth) == names


def test_a_part_starts_with_what_it_does_not_make(whole):
    assert whole.starts(["y"]) == ["c", "s"]
    assert whole.starts(["c", "y"]) == ["a", "b", "s"]
    assert whole.starts(["a"]) == ["x"]


def test_what_a_part_makes_for_nothing_is_not_needed(whole):
    assert whole.needed(["a", "b", "c", "d"], "c") == ["a", "b", "c"]
    assert whole.needed(["a", "c"], "c") == ["a", "c"]
    assert whole.needed(["a", "s", "y"], "y") == ["s", "y"], "a is made of nothing that y is made of here"


def test_without_being_told_nodes_say_their_module():
    model = small.model(*LINES)
    model.graph[1].metadata_props["pkg.torch.onnx.name_scopes"] = str(["", "block", "block.act", "relu"])
    assert Layers(model).module("b") == "block.act"
    assert Layers(model, {"b": "told"}).module("b") == "told"

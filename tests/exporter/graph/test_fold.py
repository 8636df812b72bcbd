import gc
import weakref

import numpy as np
import onnx_ir as ir
import pytest

from exporter.graph.fold import fold
from tests.exporter.graph.small import model


def test_constant_arithmetic_is_computed():
    folded = fold(model("a = Add(one, two)", "y = Mul(x, a)"))
    assert [node.op_type for node in folded.graph] == ["Mul"]
    (other,) = [value for value in folded.graph.node(0).inputs if value.name != "x"]
    assert np.array_equal(ir.convenience.get_const_tensor(other).numpy(), [3.0, 3.0])


def test_what_depends_on_an_input_stays():
    folded = fold(model("a = Add(x, two)", "y = Mul(x, a)"))
    assert [node.op_type for node in folded.graph] == ["Add", "Mul"]


def test_transposing_twice_disappears():
    folded = fold(model("a = Transpose<perm = [0]>(x)", "b = Transpose<perm = [0]>(a)", "y = Add(b, two)"))
    assert [node.op_type for node in folded.graph if node.op_type != "Identity"] == ["Add"]


def test_a_folded_graph_can_be_forgotten():
    folded = fold(model("a = Add(x, two)", "y = Mul(x, a)"))
    graph = weakref.ref(folded.graph)
    del folded
    gc.collect()
    assert graph() is None  # a network of gigabytes would stay beside the builder of its engine


@pytest.mark.parametrize(
    ("operator", "number", "stays"),
    [("Add", "0.0", False), ("Add", "1e-15", True), ("Sub", "1e-15", True), ("Mul", "1.0", False), ("Div", "1.000001", True)],
)
def test_only_the_very_number_changes_nothing(operator, number, stays):
    folded = fold(model(f"z = Constant<value_float = {number}>()", f"a = {operator}(x, z)", "y = Exp(a)"))
    assert (operator in [node.op_type for node in folded.graph]) == stays

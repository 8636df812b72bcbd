"""A pattern is followed along operators of ONNX itself, and never into somebody else's."""

import onnx_ir as ir

from exporter.graph._match import made_by, only_user, permutation


def node(operator, *inputs, domain="", **attributes):
    return ir.node(operator, list(inputs), attributes=attributes, domain=domain)


X = ir.val("x")


def test_the_maker_of_a_value():
    add = node("Add", X, X)
    assert made_by(add.outputs[0], "Add") is add
    assert made_by(add.outputs[0], "Mul") is None
    assert made_by(X, "Add") is None  # an input of the graph
    assert made_by(None, "Add") is None  # an optional input that is left out
    assert made_by(node("Add", X, X, domain="com.microsoft").outputs[0], "Add") is None


def test_the_order_of_axes():
    assert permutation(node("Transpose", X, perm=[0, 2, 1])) == (0, 2, 1)
    assert permutation(node("Transpose", X)) == ()
    assert permutation(None) == ()


def test_the_only_reader_of_a_value():
    value = ir.val("v")
    assert only_user(value, "Mul") is None
    mul = node("Mul", value, X)
    assert only_user(value, "Mul") is mul
    assert only_user(value, "Add") is None
    node("Relu", value)
    assert only_user(value, "Mul") is None
    twice = ir.val("w")
    node("Mul", twice, twice)
    assert only_user(twice, "Mul") is None, "two inputs of one node are two uses"
    foreign = ir.val("u")
    node("Mul", foreign, X, domain="com.microsoft")
    assert only_user(foreign, "Mul") is None

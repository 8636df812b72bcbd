"""Layers are nodes with a constant weight, by the names of their modules."""

import numpy as np
import onnx_ir as ir
import pytest

from engines.errors import RecipeError
from exporter.onnx.layers import delicate, layers, matching
from tests.exporter.passes.layered import quantized


def test_a_pattern_that_means_nothing_is_told(tmp_path):
    with pytest.raises(RecipeError, match=r"quantize\.keep: 'midle' is no layer of this graph; did you mean 'middle'"):
        quantized(tmp_path, format="int8-weights", keep=["midle"])


def node(operator, source, weight, kind=ir.DataType.FLOAT, **attributes):
    """A node with a constant weight of that name and shape."""
    name, *shape = weight
    tensor = ir.tensor(np.zeros(shape, kind.numpy()))
    value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(kind), const_value=tensor)
    return ir.node(operator, [source, value], attributes=attributes, name=f"node_{name}"), value


def graph(*made):
    x = ir.val("x", dtype=ir.DataType.FLOAT)
    pairs = [node(operator, x, weight, **attributes) for operator, weight, attributes in made]
    inner = ir.Graph([x], [each.outputs[0] for each, _ in pairs], nodes=[each for each, _ in pairs], opset_imports={"": 20})
    for _, value in pairs:
        if value.name not in inner.initializers:
            inner.register_initializer(value)
    return ir.Model(inner, ir_version=10)


def test_axes_and_names_of_every_kind():
    found = layers(graph(
        ("Conv", ("unet.conv_in.weight", 8, 4, 3, 3), {}),
        ("Conv", ("unet.grouped.weight", 8, 1, 3), {"group": 8}),
        ("MatMul", ("unet.to_q.weight.T", 16, 32), {}),
        ("Gemm", ("unet.time.weight", 32, 16), {"transB": 1}),
        ("Gemm", ("made_up", 16, 32), {}),
    ))  # fmt: skip
    assert [(each.name, each.kind, each.out, each.into, each.channels, each.vector) for each in found] == [
        ("conv_in", "conv", 0, 1, 1, False),
        ("grouped", "conv", 0, 1, 1, False),
        ("to_q", "product", 1, 0, -1, False),
        ("time", "product", 0, 1, -1, True),
        ("node_made_up", "product", 1, 0, -1, True),
    ]
    assert [each.grouped for each in found] == [False, True, False, False, False]
    assert [each.column for each in found[:2]] == [(-1, 1, 1), (-1, 1)]
    assert found[0].shape == (8, 4, 3, 3)
    assert (found[2].weight.name, found[2].source.name) == ("unet.to_q.weight.T", "x")


@pytest.mark.parametrize(
    ("operator", "shape", "attributes"),
    [
        ("Conv", (8, 4), {}), ("MatMul", (2, 4, 8), {}), ("Gemm", (4, 8), {"transA": 1}), ("Gemm", (4, 8), {"alpha": 2.0}),
        ("Add", (4, 8), {}), ("MatMul", (4, 8), {"kind": ir.DataType.INT8}),
    ],
)  # fmt: skip
def test_what_is_no_layer(operator, shape, attributes):
    assert layers(graph((operator, ("w.weight", *shape), attributes))) == ()


def test_a_product_of_two_activations_is_no_layer():
    x, y = ir.val("x", dtype=ir.DataType.FLOAT), ir.val("y", dtype=ir.DataType.FLOAT)
    product = ir.node("MatMul", [x, y])
    assert layers(ir.Model(ir.Graph([x, y], product.outputs, nodes=[product], opset_imports={"": 20}), ir_version=10)) == ()


def test_names_are_unique_and_those_of_the_ends_and_vectors_are_delicate():
    square = (4, 4, 1, 1)
    found = layers(graph(
        ("Conv", ("net.a.weight", *square), {}), ("Gemm", ("net.b.weight", 4, 4), {}), ("Conv", ("net.c.weight", *square), {}),
        ("MatMul", ("net.d.weight", 4, 4), {}), ("MatMul", ("other.d.weight", 4, 4), {}), ("Conv", ("net.e.weight", *square), {}),
    ))  # fmt: skip
    assert [each.name for each in found] == ["a", "b", "c", "d", "d+", "e"]
    assert delicate(found) == ("a", "b", "e")
    assert delicate(found[:1]) == ("a",)
    assert delicate(()) == ()
    assert matching(["d*", "a"], found, "x") == ("a", "d", "d+"), "in the graph's order"
    assert matching([], found, "x") == ()
    with pytest.raises(RecipeError, match=r"unet\.keep: 'f' is no layer of this graph; there are: a, b"):
        matching(["a", "f"], found, "unet.keep")

"""What is wrong with a graph whatever it computes, in sentences."""

import numpy as np
import onnx_ir as ir
import pytest

from exporter.parity.lint import lint
from tests.exporter.graph import small


@pytest.fixture
def told(tmp_path):
    """Save a graph, its weights in a file beside it, and lint that."""

    def run(model):
        for value in model.graph.initializers.values():
            value.const_value.name = value.name
        ir.save(model, tmp_path / "graph.onnx", external_data="graph.onnx.data")
        return lint(tmp_path / "graph.onnx")

    return run


def hold(model, name, array):
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=tensor.shape)
    model.graph.register_initializer(value)


def test_a_good_graph_has_nothing(told):
    assert told(small.model("a = Mul(x, two)", "y = Add(a, one)")) == []


def test_every_fault_of_a_graph_is_named_in_one_go(told):
    model = small.model("a = Mul(x, two)", "b = Softmix(a)", "y = Add(b, one)")
    for node, name in zip(model.graph, ("twin", "twin", "other"), strict=True):
        node.name = name
    model.graph.initializers["two"].const_value = ir.tensor(np.array([1, np.nan], np.float32), name="two")
    hold(model, "spare", np.array([np.inf, -np.inf, 0], np.float16))
    refused, *others = told(model)
    assert refused.startswith("the checker of ONNX refuses it: ")
    assert "Softmix" in refused
    assert sorted(others) == [
        "1 of 2 values of the weight two are NaN or infinite",
        "2 nodes are called twin",
        "2 of 3 values of the weight spare are NaN or infinite",
        "nothing reads the weight spare",
    ]


def test_shapes_that_disagree_are_refused(told):
    model = small.model("a = Mul(x, two)", "y = Add(a, one)")
    model.graph.initializers["two"].const_value = ir.tensor(np.ones(3, np.float32), name="two")
    model.graph.initializers["two"].shape = ir.Shape([3])
    (refused,) = told(model)
    assert refused.startswith("the checker of ONNX refuses it: ")
    assert "\n" not in refused


def test_an_input_that_nothing_reads(told):
    assert told(small.model("y = Add(two, one)")) == ["nothing reads the input x"]


def test_a_weight_that_is_an_output_is_read(told):
    model = small.model("y = Add(x, x)")
    hold(model, "spare", np.ones(2, np.float32))
    model.graph.outputs.append(model.graph.initializers["spare"])
    assert told(model) == []


def test_nodes_without_a_name_and_whole_numbers_are_no_fault(told):
    model = small.model("a = Mul(x, two)", "s = Reshape(a, shape)", "y = Add(s, one)")
    hold(model, "shape", np.array([2], np.int64))
    reshape = model.graph[1]
    reshape.replace_input_with(1, model.graph.initializers["shape"])
    for node in model.graph:
        node.name = ""
    assert told(model) == []

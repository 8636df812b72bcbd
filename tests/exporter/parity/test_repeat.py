"""A fault as files: a valid graph, what it is fed with, both answers, and the command that compares them."""

import shlex

import numpy as np
import onnx
import pytest
from polygraphy.comparator import RunResults
from polygraphy.json import load_json

from exporter.parity import repeat
from exporter.parity.cut import cut
from exporter.parity.layers import Layers
from tests.exporter.graph import small

X = np.array([0.5, -3.0], np.float32)


@pytest.fixture
def part():
    """A cut whose end has another name outside than inside."""
    return cut(Layers(small.model("a = Mul(x, two)", "B_1 = Relu(a)", "y = Add(B_1, one)")).model, {"a": X}, ["B_1"])


WANT, GOT = {"B_1": np.array([0.5, 0], np.float32)}, {"B_1": np.array([0.5, 9], np.float32)}


def write(folder, part, *, engine=False):
    return repeat.write(folder, part, WANT, GOT, 42.5, engine=engine)


def test_the_files_are_what_was_measured(tmp_path, part):
    write(tmp_path, part)
    onnx.checker.check_model(str(tmp_path / repeat.GRAPH), full_check=True)
    graph = onnx.load(tmp_path / repeat.GRAPH).graph
    assert [node.op_type for node in graph.node] == ["Relu"]
    (port,) = [value.name for value in graph.output]
    assert port == part.ports["B_1"] != "B_1"
    assert [dim.dim_value for dim in graph.output[0].type.tensor_type.shape.dim] == [2]
    (feeds,) = load_json(str(tmp_path / repeat.INPUTS))
    assert {name: array.tolist() for name, array in feeds.items()} == {graph.input[0].name: [0.5, -3.0]}
    for file, name, arrays in ((repeat.RIGHT, "right", WANT), (repeat.WRONG, "wrong", GOT)):
        results = RunResults.load(str(tmp_path / file))
        ((runner, (answer,)),) = results.items()
        assert runner == name
        np.testing.assert_array_equal(answer[port], arrays["B_1"])


@pytest.mark.parametrize(("engine", "against"), [(False, repeat.RIGHT), (True, repeat.WRONG)])
def test_the_command_runs_the_graph_against_the_source_or_against_the_engine(tmp_path, part, engine, against):
    folder = tmp_path / "a folder"
    words = shlex.split(write(folder, part, engine=engine))
    options = dict(zip(words[4::2], words[5::2], strict=True))
    assert words[:4] == ["polygraphy", "run", str(folder / repeat.GRAPH), "--onnxrt"]
    assert options == {
        "--graph-optimization-level": "ORT_DISABLE_ALL",
        "--load-inputs": str(folder / repeat.INPUTS),
        "--load-outputs": str(folder / against),
        "--compare": "psnr",
        "--psnr-threshold": "42.5",
    }


def test_a_folder_is_written_anew(tmp_path, part):
    folder = tmp_path / "deep" / "er"
    write(folder, part)
    (folder / f"{repeat.GRAPH}.data").write_bytes(b"weights of another graph")
    first = (folder / repeat.GRAPH).read_bytes()
    write(folder, part)
    assert (folder / repeat.GRAPH).read_bytes() == first
    assert {file.name for file in folder.iterdir()} == {repeat.GRAPH, repeat.INPUTS, repeat.RIGHT, repeat.WRONG}


def test_arrays_that_are_views_are_written_as_they_look(tmp_path, part):
    turned = np.array([[1, 2], [3, 4]], np.float32).T[0]
    assert not turned.flags.c_contiguous
    repeat.write(tmp_path, part, {"B_1": turned}, GOT, 30, engine=False)
    ((_, (answer,)),) = RunResults.load(str(tmp_path / repeat.RIGHT)).items()
    assert answer[part.ports["B_1"]].tolist() == [1, 3]

"""An engine's build as plain data."""

import pickle

import pytest

from engines.backends import BackendOptions
from engines.signature import Signature
from exporter.stages.engine_work import EngineWork

CONTRACT = Signature(inputs=(), outputs=(), dims={})


class Listing(BackendOptions):
    """A backend that lists what lies beside the graph."""

    def build(self, onnx, _signature, folder):
        (folder / "engine").write_text(f"{onnx.read_text()} with {sorted(file.name for file in onnx.parent.glob('*.data'))}")


@pytest.fixture
def graph(tmp_path):
    (tmp_path / "graph").mkdir()
    (tmp_path / "graph" / "unet.onnx").write_text("a graph")
    (tmp_path / "graph" / "unet.onnx.data").write_text("weights")
    return tmp_path / "graph" / "unet.onnx"


def test_it_is_built_wherever_it_was_sent(graph, tmp_path):
    work = EngineWork(Listing(), (graph, graph.with_name("unet.onnx.data")), CONTRACT)
    assert work.bytes == len("a graphweights")
    pickle.loads(pickle.dumps(work)).build(tmp_path)  # noqa: S301 - our own
    assert (tmp_path / "engine").read_text() == "a graph with ['unet.onnx.data']"


def test_weights_of_another_folder_lie_beside_the_graph_meanwhile(graph, tmp_path):
    (tmp_path / "whole.data").write_text("more")
    (tmp_path / "out").mkdir()
    EngineWork(Listing(), (graph, tmp_path / "whole.data"), CONTRACT).build(tmp_path / "out")
    assert (tmp_path / "out" / "engine").read_text() == "a graph with ['whole.data']"
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["engine"]

"""What one machine sends through a URL, another fetches; and what a store refuses is a sentence."""

import pytest

from engines.errors import MachineError, UnsupportedError
from exporter.cluster.exchange import Exchange


def test_what_is_sent_is_fetched_and_can_be_removed(tmp_path):
    (tmp_path / "graph.onnx").write_text("a graph")
    (tmp_path / "graph.onnx.data").write_text("weights")
    here, there = Exchange((tmp_path / "store").as_uri()), Exchange((tmp_path / "store").as_uri() + "/")
    places = here.send([tmp_path / "graph.onnx", tmp_path / "graph.onnx.data"], "build-1/graph-0")
    assert places == ("build-1/graph-0/graph.onnx", "build-1/graph-0/graph.onnx.data")
    (tmp_path / "elsewhere").mkdir()
    fetched = there.fetch(places, tmp_path / "elsewhere")
    assert [(file.name, file.read_text()) for file in fetched] == [("graph.onnx", "a graph"), ("graph.onnx.data", "weights")]
    here.remove("build-1")
    here.remove("build-1")
    assert list((tmp_path / "store").iterdir()) == []


def test_what_is_not_there_is_told(tmp_path):
    with pytest.raises(MachineError, match=r"reading file://\S+: FileNotFoundError(.|\n)*Every machine of the cluster"):
        Exchange(tmp_path.as_uri()).fetch(["nowhere/graph.onnx"], tmp_path)


def test_what_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MachineError, match=r"writing file://"):
        Exchange((tmp_path / "file").as_uri()).send([tmp_path / "file"], "build-1")


def test_a_kind_that_nobody_knows_is_told():
    with pytest.raises(UnsupportedError, match=r"nobody knows gopher://(.|\n)*s3://bucket/build"):
        Exchange("gopher://hole")

"""What a backend builds of a graph, and what it is built anew for."""

from pathlib import Path
from typing import ClassVar

import pytest

from engines.strict import Frozen
from exporter.stages import engines
from exporter.stages.engines import BuiltEngine
from exporter.stages.export import GraphFiles
from exporter.stages.stage import Results, Stage
from exporter.stages.store import Store


class Recorder(Frozen):
    """A backend that writes down what it is asked to build."""

    level: int = 0
    files: tuple[str, ...] = ("b.bin", "a.bin")

    runs_onnx: ClassVar[bool] = False
    gpus: tuple[str, ...] = ()

    @property
    def version(self):
        return "1.2"

    @property
    def each(self):
        return {gpu: self.model_copy(update={"gpus": (), "files": (f"{gpu}.bin",)}) for gpu in self.gpus}

    def build(self, graph, signature, folder):
        for name in self.files:
            (folder / name).write_text(f"{graph.name} {signature}")


class Family:
    def signature(self, name):
        return f"the contract of {name}"


def _export(folder, _results):
    (folder / "unet.onnx").write_text("a graph")
    GraphFiles(folder, "unet").tell({})


def _export_other(folder, _results):
    (folder / "unet.onnx").write_text("another graph")
    GraphFiles(folder, "unet").tell({})


def graph(make=_export, **options):
    return Stage.keyed("export", "unet", make, lambda folder: GraphFiles(folder, "unet"), options=options, inputs={})


def built(backend=None, exported=None, target="recorder", **more):
    return engines.built("unet", target, backend or Recorder(), exported or graph(), Family(), **more)


def test_a_backend_builds_of_the_graph_under_the_part_s_contract(tmp_path):
    found = Results(Store(tmp_path))[built()]
    assert [file.name for file in found.files] == ["a.bin", "b.bin"]
    assert found.files[0].read_text() == "unet.onnx the contract of unet"


def test_a_backend_that_runs_the_graph_itself_builds_nothing(tmp_path):
    assert Results(Store(tmp_path))[built(Recorder(files=()))].files == []
    assert isinstance(BuiltEngine(Path()), BuiltEngine)


def test_a_stage_is_named_by_part_and_target():
    assert built().name == ("engine", "unet, recorder")
    assert built(verb="rival", target="other").name == ("rival", "unet, other")


@pytest.mark.parametrize(
    "other",
    [
        built(Recorder(level=1)),
        built(exported=graph(opset=20)),
        built(exported=graph(_export_other)),
        built(verb="rival"),
    ],
    ids=["options", "graph's options", "graph's code", "verb"],
)
def test_it_is_built_anew_for(other):
    assert other.key.digest != built().key.digest


def test_it_is_built_anew_for_another_version_of_the_library(monkeypatch):
    before = built().key.digest
    monkeypatch.setattr(Recorder, "version", "1.3")
    assert built().key.digest != before


def test_it_is_not_built_anew_for_nothing():
    assert built().key.digest == built(exported=graph()).key.digest
